"""Bytes to uint8 pixels: one wrapper, and one policy for every odd kind of file.

- The content decides, not the name: a PNG called .jpg is read as a PNG.
- A rotation noted in EXIF is applied.
- Palettes are looked up; anything with transparency is laid on white.
- 16-bit grey is scaled from its full range, 0 to 65535, to 0 to 255.
- CMYK, YCbCr and LAB become RGB; grey among colour is repeated in three channels, colour among
  grey is turned to luma.
- Of an animation or a file of several pages, the first picture counts.
- Refused, with a reason: damaged or cut-off files, more than 179 million pixels, 32-bit and
  floating-point pixels (their range is not known).

torchcodec decodes plain JPEG and PNG, several times faster for small files; Pillow does the rest,
and everything where torchcodec is missing.
"""

import io
import re
import struct
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unmask.contracts import Size
from unmask.data.plain_headers import plain_file
from unmask.errors import DataError

IMAGE_ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".ppm",
        ".pgm",
        ".jp2",
    ]
)
"""Files with these endings are taken for images; their content then decides."""

_MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    struct.error,
)


class Header(NamedTuple):
    """What the first bytes of a file say."""

    size: Size
    grey: bool


def read_header(data: Any) -> Header:
    """Type and size of an image, from a path or an open file; no pixel is decoded.

    Raises:
        DataError: with the reason, if this is no image that `decode` would read.
    """
    try:
        with _open(data) as image:
            _check(image)
            return Header(
                Size(image.height, image.width), image.mode in ("1", "L", "I;16", "I;16B")
            )
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(_reason(error)) from None


def decode(data: bytes, channels: int) -> UInt8[Tensor, "c h w"]:
    """The pixels of an encoded image, with 1 or 3 channels.

    Raises:
        DataError: with the reason.
    """
    fast = _torchcodec()
    try:
        if (
            fast
            and (plain := plain_file(data))
            and plain.size.height * plain.size.width <= _MAX_PIXELS
        ):
            return fast[plain.format](data, mode="RGB" if channels == 3 else "GRAY")
        with _open(io.BytesIO(data)) as image:
            _check(image)
            if fast and _plain(image):
                return fast[image.format](data, mode="RGB" if channels == 3 else "GRAY")
            pixels = np.array(_converted(image, "RGB" if channels == 3 else "L"))
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(_reason(error)) from None
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def decode_jpegs(files: list[Tensor], channels: int, device: torch.device) -> list[Tensor]:
    """The pixels of plain JPEGs, [c h w] each, from their bytes, [n] on the CPU; decoded all at once on the device.

    Raises:
        RuntimeError: if any of them cannot be decoded there.
        ImportError: without torchcodec.
    """
    from torchcodec.decoders import decode_jpeg

    found: Any = decode_jpeg(files, mode="RGB" if channels == 3 else "GRAY", device=device)
    return found


def upright_format(data: bytes) -> str | None:
    """JPEG or PNG, if a file is one in which every reader sees what `decode` does; else None."""
    with _open(io.BytesIO(data)) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return image.format if _plain(image) and upright else None


def jpeg_or_png(data: bytes) -> str:
    """JPEG for a file that is one already, of whatever colours; PNG for all others."""
    with _open(io.BytesIO(data)) as image:
        return "JPEG" if image.format in ("JPEG", "MPO") else "PNG"


def _torchcodec() -> dict[str | None, Any] | None:
    """torchcodec's decoders by format, or None where it is not installed or cannot load its libraries."""
    try:
        from torchcodec.decoders import decode_jpeg, decode_png
    except (ImportError, OSError, RuntimeError):
        return None
    return {"JPEG": decode_jpeg, "PNG": decode_png}


def _open(data: Any) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(data)


def _check(image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels are more than {_MAX_PIXELS:,}")
    if image.mode in ("I", "F"):
        raise DataError(f"pixels of mode {image.mode} (32 bits each) have no known range")


def _plain(image: Image.Image) -> bool:
    """Whether torchcodec reads this file just as the policy says."""
    if image.format not in ("JPEG", "PNG") or image.mode not in ("L", "RGB"):
        return False
    return not getattr(image, "is_animated", False) and "transparency" not in image.info


def _converted(image: Image.Image, mode: str) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        wide = np.asarray(turned).astype(np.uint32)
        turned = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if turned.has_transparency_data:
        over = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return turned.convert(mode)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known type"
    if isinstance(error, Image.DecompressionBombError):
        return str(error).partition(", could")[0]
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    first = re.sub(r"^\w+, \S+\.cpp:\d+, ", "", first)  # the place in torchcodec's source
    return f"damaged or cut off ({first})"
