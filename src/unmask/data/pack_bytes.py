"""Pixels to the bytes that a shard holds: the counterpart of `decode`.

- An image no larger than asked for, whose file is an upright JPEG or PNG that `decode` reads as it stands, is copied
  bit for bit.
- Anything larger is resized as views are (bicubic, smoothed) and becomes a JPEG.
- What is not resized is not compressed with loss either (PNG), unless it is a turned or CMYK JPEG.
- What JPEG and PNG cannot hold, other numbers of channels than 1 and 3 or floating-point values, becomes a `.npy`.
"""

import io
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unmask.contracts import ImageSource, Size
from unmask.data.decode import decode, jpeg_or_png, upright_format
from unmask.data.geometry import resize
from unmask.data.image_files import EncodedImages
from unmask.data.tar_index import ARRAY_ENDING
from unmask.errors import DataError

_ENDINGS = {"JPEG": ".jpg", "PNG": ".png"}


def as_arrays(source: ImageSource) -> bool:
    """Whether images of a source become arrays, for want of an encoding that holds them."""
    return source.channels not in (1, 3) or source.values != "uint8"


class Stored(NamedTuple):
    """An image as a member of a shard."""

    data: bytes
    ending: str
    size: Size
    copied: bool
    """Whether these are the bytes of the original file."""


def stored(source: ImageSource, position: int, short_side: int, quality: int) -> Stored:
    """An image of a source, its shorter side at most `short_side` pixels.

    Raises:
        DataError: if it cannot be decoded.
    """
    file = source.encoded(position) if isinstance(source, EncodedImages) else None
    image = source[position].image if file is None else decode(file, source.channels)
    size = shrunk_size(Size(*image.shape[-2:]), short_side)
    if image.dtype != torch.uint8 or len(image) not in (1, 3):
        return Stored(_array(_resized(image, size)), ARRAY_ENDING, size, False)
    if size != image.shape[-2:]:
        return Stored(_encoded(_resized(image, size), "JPEG", quality), ".jpg", size, False)
    if file is None:
        return Stored(_encoded(image, "PNG", quality), ".png", size, False)
    if kind := upright_format(file):
        return Stored(file, _ENDINGS[kind], size, True)
    kind = jpeg_or_png(file)
    return Stored(_encoded(image, kind, quality), _ENDINGS[kind], size, False)


def shrunk_size(size: Size, short_side: int) -> Size:
    """The size in the same proportions with this shorter side; never a larger one."""
    shorter = min(size)
    if shorter <= short_side:
        return size
    return Size(*(max(short_side, round(side * short_side / shorter)) for side in size))


def _resized(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    return image if image.shape[-2:] == size else resize(image, size)


def _encoded(image: Shaped[Tensor, "c h w"], kind: str, quality: int) -> bytes:
    pixels = image.permute(1, 2, 0).numpy()
    settings: dict[str, Any] = {"quality": quality} if kind == "JPEG" else {}
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., 0] if len(image) == 1 else pixels)).save(
        buffer, kind, **settings
    )
    return buffer.getvalue()


def _array(image: Shaped[Tensor, "c h w"]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, _laid_out(image.numpy()), allow_pickle=False)
    return buffer.getvalue()


def _laid_out(image: NDArray[Any]) -> NDArray[Any]:
    """The array with its channels where a reader looks for them: on the smaller of the outer axes.

    Raises:
        DataError: if no layout tells which axis holds the channels.
    """
    channels, height, width = image.shape
    if channels == 1:
        return image[0]
    if channels < width:
        return np.ascontiguousarray(image)
    if channels < height:
        return np.ascontiguousarray(image.transpose(1, 2, 0))
    raise DataError(
        f"has {channels} channels on {height} x {width} pixels, and an array with more channels than "
        "pixels a side does not tell which is which"
    )
