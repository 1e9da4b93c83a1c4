"""Images of a Python program: files, Pillow pictures, arrays and tensors, alone, in lists or in data sets.

- Arrays have their channels last, [h w] or [h w c], and tensors first, [h w] or [c h w], as everywhere.
- Values are uint8; or floats from 0 to 1, which become 0 to 255; or uint16, which are scaled as 16-bit pictures are.
- For a model of multi-band images, values are taken as they are, in the units of its training images.
"""

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from unmask.channels import Values
from unmask.data.decode import MODES, picture_pixels
from unmask.data.deep import Range, range_of, sample, scaled
from unmask.data.in_memory import to_channels
from unmask.errors import DataError, SettingsError, listed

Picture = Image.Image | NDArray[Any] | Tensor
"""An image that is in memory."""

TAKEN = (
    "a path, a Pillow picture, an array [h w] or [h w c], a tensor [c h w], a list of those, or a torch Dataset of "
    "images or (image, label) pairs"
)
"""What a user may give as images, for messages."""

_IMAGE_KEYS = ("image", "img", "pixel_values")
_LABEL_KEYS = ("label", "labels")


@runtime_checkable
class ByNumber(Protocol):
    """What a map-style data set offers."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


def each_of(images: Any, channels: int) -> ByNumber:
    """Images one by one: a list, an array or a data set, whose entries `image_of` takes apart.

    `channels` are those of the model, so that [h w c] and [n h w] are told apart.

    Raises:
        SettingsError: for anything else, with what may be given.
    """
    if isinstance(images, str | Path | Image.Image):
        return [images]
    if hasattr(images, "to_numpy"):  # a column of a data frame
        images = images.to_numpy()
    if isinstance(images, np.ndarray | Tensor):
        return _each_of_array(images, channels)
    if isinstance(images, DataLoader):
        raise SettingsError("a DataLoader gives batches, not images; give its data set here")
    if isinstance(images, Iterator):
        return list(images)
    if isinstance(images, Mapping | set | bytes) or not (
        isinstance(images, Sized) and hasattr(images, "__getitem__")
    ):
        raise SettingsError(f"images are {TAKEN}; got {type(images).__name__}")
    return images  # pyright: ignore[reportReturnType] - it has both methods


def _each_of_array(images: NDArray[Any] | Tensor, channels: int) -> ByNumber:
    if isinstance(images, np.ndarray) and images.dtype.kind in "OU" and images.ndim == 1:
        return images.tolist()
    last = images.ndim == 3 and images.shape[-1] in {1, 3, 4, channels}
    if images.ndim == 4 or (images.ndim == 3 and isinstance(images, np.ndarray) and not last):
        return images  # pyright: ignore[reportReturnType]
    if images.ndim in (2, 3):
        return [images]
    raise SettingsError(
        f"an array of images has the shape [h w], [h w c], [n h w] or [n h w c], and a tensor [c h w] or [n c h w]; got "
        f"{tuple(images.shape)}"
    )


def image_of(entry: Any) -> Any:
    """The image of an entry of a data set: the entry itself, or the first of a pair, or of a mapping its `image`.

    Raises:
        DataError: if there is none.
    """
    if isinstance(entry, Mapping):
        for key in _IMAGE_KEYS:
            if key in entry:
                return entry[key]
        raise DataError(f"an entry has no key {' or '.join(_IMAGE_KEYS)}; it has {listed(entry)}")
    if isinstance(entry, tuple | list):
        if not entry:
            raise DataError("an entry of the data set is empty, so there is no image in it")
        return entry[0]
    return entry


def label_of(entry: Any) -> Any:
    """The label of an entry of a data set, the second of a pair or `label` of a mapping; None if there is none."""
    if isinstance(entry, Mapping):
        return next((entry[key] for key in _LABEL_KEYS if key in entry), None)
    return entry[1] if isinstance(entry, tuple | list) and len(entry) > 1 else None


def name_of(entry: Any, number: int) -> str:
    """What an image is called: its path, or its number."""
    image = image_of(entry) if isinstance(entry, tuple | list | Mapping) and entry else entry
    if isinstance(image, str | Path):
        return str(image)
    return str(getattr(image, "filename", "") or f"image {number}")


def pixels_of(
    image: Any, channels: int, values: Values = "uint8", levels: Range | None = None
) -> Shaped[Tensor, "c h w"]:
    """The pixels of a picture in memory, in the form in which files are read.

    Args:
        image: a Pillow picture, an array or a tensor.
        channels: how many the result has; grey is repeated in 3, and colour becomes luma.
        values: uint8, or float32 for values as they are.
        levels: the range of uint16 values; that of the image if None.

    Raises:
        DataError: with what is wrong, and what an image may be.
    """
    if isinstance(image, Image.Image):
        if values == "uint8" and channels in MODES:
            return picture_pixels(image, channels, levels)
        image = np.asarray(image)
    pixels = _channels_first(image, channels)
    pixels = pixels.float() if values == "float32" else _as_bytes(pixels, levels)
    return _with_channels(pixels, channels)


def _channels_first(image: Any, channels: int) -> Shaped[Tensor, "c h w"]:
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "buif":
            raise DataError(f"an array of {image.dtype} holds no pixels; images are {TAKEN}")
        pixels = torch.from_numpy(
            np.require(image, requirements=["C", "W"])
        )  # a copy of read-only pixels
        pixels = pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)
    elif isinstance(image, Tensor):
        pixels = image.detach().cpu()
        pixels = pixels[None] if pixels.ndim == 2 else pixels
    else:
        raise DataError(f"{type(image).__name__} is no image; images are {TAKEN}")
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise DataError(f"one image has two or three axes, got shape {tuple(image.shape)}")
    if len(pixels) not in {1, 3, 4, channels}:
        order = "[h w c]" if isinstance(image, np.ndarray) else "[c h w]"
        raise DataError(
            f"an image of shape {tuple(image.shape)} has {len(pixels)} channels, read as {order}, and the model was "
            f"trained on {channels}"
        )
    return pixels


def check_unit(pixels: Tensor) -> None:
    """Refuse floats that are not from 0 to 1.

    Raises:
        DataError: with their range.
    """
    low, high = pixels.aminmax()
    if not (low >= 0 and high <= 1):  # also for NaN
        raise DataError(
            f"floats must lie from 0 to 1, got {low:.3g} to {high:.3g}; leave out the normalisation, which the model "
            "does itself, and give values of 0 to 255 as uint8"
        )


def bytes_of(pixels: Shaped[Tensor, "*b h w"]) -> UInt8[Tensor, "*b h w"]:
    """Floats from 0 to 1 as 0 to 255; uint8 as it is.

    Raises:
        DataError: for other values.
    """
    if pixels.is_floating_point():
        check_unit(pixels)
        return (pixels * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        dtype = str(pixels.dtype).removeprefix("torch.")
        raise DataError(
            f"pixels are uint8, uint16, or floats from 0 to 1, got {dtype}; convert them to uint8"
        )
    return pixels


def _as_bytes(pixels: Tensor, levels: Range | None) -> Tensor:
    if pixels.dtype == torch.uint16:
        deep = pixels.permute(1, 2, 0).numpy()
        shallow = scaled(deep, range_of([sample(deep)]) if levels is None else levels)
        shallow = torch.from_numpy(shallow)
        return shallow[None] if shallow.ndim == 2 else shallow.permute(2, 0, 1)
    return bytes_of(pixels)


def _with_channels(pixels: Tensor, channels: int) -> Tensor:
    if len(pixels) == channels:
        return pixels
    if pixels.dtype == torch.uint8 and channels in (1, 3):
        if len(pixels) == 4:  # with alpha
            picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), "RGBA")
            return picture_pixels(picture, channels)
        return to_channels(pixels, channels)
    raise DataError(f"has {len(pixels)} channels, but the model was trained on {channels}")


def batch_of(batch: Any, number: int) -> Tensor:
    """The images [b c h w] of a batch of a DataLoader: the batch itself, the first of a pair, or `image` of a mapping.

    Raises:
        DataError: if that is no tensor of this shape.
    """
    images = image_of(batch)
    if not isinstance(images, Tensor) or images.ndim != 4:
        shape = (
            f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise DataError(
            f"a loader must give batches [b c h w], or pairs that begin with one, but batch {number} is {shape}; "
            "transform=model.transform makes such images"
        )
    return images
