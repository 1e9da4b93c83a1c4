"""Encoding of images as members of a tar shard (the counterpart of `decode`), and writing of the shard.

- The file of an upright JPEG or PNG that is small enough is copied bit for bit.
- A larger image is resized like a view (bicubic with antialiasing) and becomes a JPEG.
- An image that is not resized becomes a lossless PNG, except rotated or CMYK JPEGs, which stay JPEGs.
- An image that JPEG and PNG cannot store (not 1 or 3 channels, or floating-point values) becomes a `.npy`.
"""

import io
import os
import tarfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unmask.contracts import ImageSource, Size
from unmask.data.decode import jpeg_or_png, upright_format
from unmask.data.geometry import resize
from unmask.data.image_files import EncodedImages
from unmask.data.tar_index import ARRAY_ENDING
from unmask.errors import DataError

_ENDINGS = {"JPEG": ".jpg", "PNG": ".png"}


def as_arrays(source: ImageSource) -> bool:
    """Whether images of a source become arrays, because JPEG and PNG cannot store them."""
    return source.channels not in (1, 3) or source.values != "uint8"


class Stored(NamedTuple):
    """An image as a member of a shard."""

    data: bytes
    ending: str
    size: Size
    copied: bool
    """Whether `data` is the original file."""


class ShardWriter:
    """Writes a tar file member by member and computes its checksum; equal contents give equal bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, 0
        self._digest = sha256()
        self._file = path.open("wb")

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its data."""
        member = tarfile.TarInfo(name)  # without time and owner: equal contents give equal bytes
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self.bytes
        self._write(data)
        self._pad(tarfile.BLOCKSIZE)
        return offset

    def close(self) -> str:
        """Finish the file and flush it to disk; returns its SHA-256."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad(tarfile.RECORDSIZE)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Close and delete the file."""
        with suppress(OSError):  # on a full disk, flushing the buffer fails too
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _pad(self, block: int) -> None:
        self._write(bytes(-self.bytes % block))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)


def stored(source: ImageSource, position: int, short_side: int, quality: int) -> Stored:
    """An image of a source, encoded with a shorter side of at most `short_side` pixels.

    Raises:
        DataError: if it cannot be decoded.
    """
    if isinstance(source, EncodedImages):
        file = source.encoded(position)
        image = source.decoded(file)
    else:
        file, image = None, source[position].image
    size = shrunk_size(Size(*image.shape[-2:]), short_side)
    if image.dtype != torch.uint8 or len(image) not in (1, 3):
        smaller = image if size == image.shape[-2:] else resize(image, size)
        return Stored(_array(smaller.numpy()), ARRAY_ENDING, size, False)
    if size != image.shape[-2:]:
        return Stored(_encoded(resize(image, size), "JPEG", quality), ".jpg", size, False)
    if file is None:
        return Stored(_encoded(image, "PNG", quality), ".png", size, False)
    if kind := upright_format(file):
        return Stored(file, _ENDINGS[kind], size, True)
    kind = jpeg_or_png(file)
    return Stored(_encoded(image, kind, quality), _ENDINGS[kind], size, False)


def shrunk_size(size: Size, short_side: int) -> Size:
    """The size with this shorter side and the same aspect ratio; never larger than `size`."""
    shorter = min(size)
    if shorter <= short_side:
        return size
    return Size(*(max(short_side, round(side * short_side / shorter)) for side in size))


def _encoded(image: Shaped[Tensor, "c h w"], kind: str, quality: int) -> bytes:
    settings: dict[str, Any] = {"quality": quality} if kind == "JPEG" else {}
    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    Image.fromarray(pixels.contiguous().numpy()).save(buffer, kind, **settings)
    return buffer.getvalue()


def _array(image: NDArray[Any]) -> bytes:
    """A .npy file of [h w], [c h w] or [h w c], in which the smaller outer axis has the channels, as `tiff` expects.

    Raises:
        DataError: if every layout is ambiguous.
    """
    channels, height, width = image.shape
    if channels == 1:
        image = image[0]
    elif channels >= width:
        if channels >= height:
            raise DataError(
                f"has {channels} channels and {height} x {width} pixels; a .npy file with more channels than "
                "pixels per side would be ambiguous"
            )
        image = image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(image), allow_pickle=False)
    return buffer.getvalue()
