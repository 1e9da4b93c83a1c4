"""Decoding of image files to uint8 pixels, with one policy for unusual files.

- The content decides the format, not the name: a PNG called .jpg is read as a PNG.
- The EXIF orientation is applied.
- Palettes are resolved; transparent images are composited on white.
- 16-bit grey is scaled from its full range, 0 to 65535, to 0 to 255.
- CMYK, YCbCr and LAB are converted to RGB. In a colour data set, grey is repeated in three channels; in a grey one,
  colour is converted to luma.
- Of an animation or a file with several pages, only the first picture is read.
- Refused, with a reason: damaged or truncated files, more than 179 million pixels, 32-bit and
  floating-point pixels (their range is not known).

torchcodec decodes plain JPEG and PNG, several times faster than Pillow for small files. Pillow decodes all others,
and all files if torchcodec is missing.
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
"""Files with these endings are read as images; their content then decides the format."""

_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may try. Never EPS: PostScript is a program, which Pillow would have Ghostscript run."""

_MAX_PIXELS = 178_956_970  # Pillow's limit for decompression bombs
_UNREADABLE = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    struct.error,
)

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PLAIN = (b"\x08\x00", b"\x08\x02")
"""8-bit grey or RGB."""
_PNG_SKIPPED = frozenset([b"gAMA", b"sRGB", b"pHYs", b"cHRM", b"iCCP", b"tEXt", b"tIME", b"bKGD"])
_FRAMES = frozenset([0xC0, 0xC1, 0xC2])
"""Baseline, extended and progressive frames."""
_TABLES = frozenset([0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)])
_MULTI_PICTURE = 0xE2, b"MPF\0"


class Header(NamedTuple):
    """The contents of an image file's header."""

    size: Size
    grey: bool


def read_header(data: Any) -> Header:
    """Size of an image and whether it is grey, from a path or an open file, without decoding pixels.

    Raises:
        DataError: with the reason, if `decode` would not read it.
    """
    try:
        with open_image(data) as image:
            _check(image)
            return Header(
                Size(image.height, image.width), image.mode in ("1", "L", "I;16", "I;16B")
            )
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(_reason(error)) from None


def decode(data: bytes, channels: int) -> UInt8[Tensor, "c h w"]:
    """The pixels of an encoded image, with 1 or 3 channels; raises DataError with the reason."""
    fast = _torchcodec()
    try:
        if (
            fast
            and (plain := plain_file(data))
            and plain.size.height * plain.size.width <= _MAX_PIXELS
        ):
            return fast[plain.format](data, mode="RGB" if channels == 3 else "GRAY")
        with open_image(io.BytesIO(data)) as image:
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
    """The pixels of plain JPEGs, [c h w] each, from their bytes, [n] on the CPU; decoded together on the device.

    Raises:
        RuntimeError: if the device cannot decode one of them.
        ImportError: if torchcodec is missing.
    """
    from torchcodec.decoders import decode_jpeg

    images: Any = decode_jpeg(files, mode="RGB" if channels == 3 else "GRAY", device=device)
    return images


def upright_format(data: bytes) -> str | None:
    """JPEG or PNG, if every decoder reads the same pixels from the file as `decode`; else None."""
    with open_image(io.BytesIO(data)) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return image.format if _plain(image) and upright else None


def jpeg_or_png(data: bytes) -> str:
    """JPEG for any JPEG file, whatever its colour space; PNG for all others."""
    with open_image(io.BytesIO(data)) as image:
        return "JPEG" if image.format in ("JPEG", "MPO") else "PNG"


class Plain(NamedTuple):
    """An 8-bit file without transparency, palette or second picture."""

    format: str
    size: Size


def plain_file(data: bytes) -> Plain | None:
    """Format and size of a plain 8-bit JPEG or PNG, grey or RGB; None if that is not certain.

    Pillow takes ten times as long, about 5 % of the time to decode a small image.
    """
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg(data)
    return _png(data) if data[:8] == _PNG else None


def _jpeg(data: bytes) -> Plain | None:
    """Read the markers up to the frame header."""
    offset = 2
    while offset + 10 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, offset + 4)
            if bits != 8 or channels not in (1, 3) or not height or not width:
                return None
            return Plain("JPEG", Size(height, width))
        if marker not in _TABLES or (marker, data[offset + 4 : offset + 8]) == _MULTI_PICTURE:
            return None
        offset += 2 + (data[offset + 2] << 8 | data[offset + 3])
    return None


def _png(data: bytes) -> Plain | None:
    """Read the chunks up to the pixels."""
    if data[12:16] != b"IHDR" or data[24:26] not in _PNG_PLAIN:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    offset = 33
    while (kind := data[offset + 4 : offset + 8]) in _PNG_SKIPPED:
        offset += 12 + int.from_bytes(data[offset : offset + 4], "big")
    return Plain("PNG", Size(height, width)) if kind == b"IDAT" and height and width else None


def _torchcodec() -> dict[str | None, Any] | None:
    """torchcodec's decoders by format, or None if it is not installed or cannot load its libraries."""
    try:
        from torchcodec.decoders import decode_jpeg, decode_png
    except (ImportError, OSError, RuntimeError):
        return None
    return {"JPEG": decode_jpeg, "PNG": decode_png}


def open_image(data: Any) -> Image.Image:
    """A path or an open file as Pillow's image, pixels not yet read; in one of the formats that we read, by content.

    Raises:
        OSError: if it cannot be read; `UnidentifiedImageError` if it is in no such format.
    """
    Image.init()  # so that `OPEN` has every format that this build of Pillow reads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(data, formats=[name for name in _FORMATS if name in Image.OPEN])


def _check(image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels are more than {_MAX_PIXELS:,}")
    if image.mode in ("I", "F"):
        raise DataError(f"pixels of mode {image.mode} (32 bits each) have no known range")


def _plain(image: Image.Image) -> bool:
    """Whether torchcodec decodes this file as our policy says."""
    if image.format not in ("JPEG", "PNG") or image.mode not in ("L", "RGB"):
        return False
    return not getattr(image, "is_animated", False) and "transparency" not in image.info


def _converted(image: Image.Image, mode: str) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        levels = np.asarray(upright).astype(np.uint32)
        upright = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if upright.has_transparency_data:
        overlay = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay)
    return upright.convert(mode)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return str(error).partition(", could")[0]
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied)"
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    first = re.sub(r"^\w+, \S+\.cpp:\d+, ", "", first)  # the line of torchcodec's source
    return f"damaged or truncated ({first})"
