"""Decoding of image files to uint8 pixels, with one policy for unusual files.

- The content decides the format, not the name: a PNG called .jpg is read as a PNG.
- The orientation that EXIF or XMP states is applied.
- Palettes and MinIsWhite are resolved. Transparent images are composited on white, unless alpha is a channel of the data.
- 16-bit pixels are scaled to 0 to 255 from a range that is measured once for all images (`deep`).
- CMYK, YCbCr and LAB are converted to RGB. In a colour data set, grey is repeated in three channels; in a grey one,
  colour is converted to luma.
- Of an animation or a file with several pages, only the first picture is read.
- Refused, with a reason: damaged or truncated files, more than 179 million pixels, 32-bit and
  floating-point pixels (their range is not known).

torchcodec decodes plain JPEG and PNG, several times faster than Pillow for small files, and HEIC, which Pillow does
not read. Pillow decodes all others, and all files if torchcodec is missing.
"""

import io
import re
import struct
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Shaped, UInt8, UInt16
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unmask.contracts import Size
from unmask.data.deep import Range, grey_values, is_cut, is_deep, range_of, sample, scaled
from unmask.data.picture_formats import (
    HEAD,
    first_bytes,
    format_of,
    heic_size,
    is_heic,
    open_image,
    reads_jxl,
    unknown_format,
)
from unmask.data.plain_headers import plain_file, turned_by_xmp
from unmask.errors import DataError, first_line

T = TypeVar("T")

_MAX_PIXELS = 178_956_970  # Pillow's limit for decompression bombs
_UNREADABLE = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    RuntimeError,
    EOFError,
    struct.error,
)

TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: array[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""How EXIF's orientations become upright."""


MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's modes by the number of channels."""

_FAST_MODES = {1: "GRAY", 3: "RGB"}
_ALPHA = ("LA", "RGBA", "PA", "La", "RGBa")
_SEVERAL = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")
"""Formats whose further pictures are frames or pages, not thumbnails as in phones' JPEGs."""


def decoders() -> tuple[str, ...]:
    """What reads pictures here besides the usual formats; installing one changes which files are read."""
    return tuple(
        name
        for name, is_here in (("torchcodec", _torchcodec() is not None), ("jxl", reads_jxl()))
        if is_here
    )


class Header(NamedTuple):
    """The contents of an image file's header."""

    size: Size
    grey: bool
    bands: int = 3
    """Channels as stored, after palettes: 1 or 3, and alpha."""
    deep: bool = False
    """Whether pixels have 16 bits."""
    alpha: bool = False
    """Whether it has an alpha channel or a transparent colour."""
    several: bool = False
    """Whether the file holds further pictures."""


def read_header(data: Any) -> Header:
    """Size, depth and channels of an image, from a path or an open file, without decoding pixels.

    Raises:
        DataError: with the reason, if `decode` would not read it.
    """
    with reasons(data):
        try:
            with open_image(data) as image:
                _check(image)
                grey = image.mode in ("1", "L", "I") or image.mode.startswith("I;16")
                return Header(
                    Size(image.height, image.width),
                    grey,
                    (1 if grey else 3) + (image.mode in _ALPHA),
                    is_deep(image),
                    image.mode in _ALPHA or "transparency" in image.info,
                    image.format in _SEVERAL and bool(getattr(image, "is_animated", False)),
                )
        except UnidentifiedImageError:
            if not is_heic(first_bytes(data)):
                raise
            _heic_decoder()
            return Header(heic_size(data), grey=False)


def stored_as(data: Any) -> tuple[Size, int]:
    """Size of a picture as it is stored, and EXIF's orientation, 1 for upright; from a path or an open file.

    Raises:
        DataError: with the reason, if it cannot be read.
    """
    with reasons(data):
        if is_heic(first_bytes(data)):  # its decoder and its header give the displayed picture
            return heic_size(data), 1
        with open_image(data) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1)
            return Size(image.height, image.width), turned if turned in TURNS else 1


def has_image_content(path: Path, strictly: bool = False) -> bool:
    """Whether a file is an image by its first bytes, whatever its name; `strictly`, by its whole header."""
    try:
        kind = format_of(first_bytes(path))
        if (
            kind is not None and strictly and kind not in ("HEIC", "JXL")
        ):  # their package may be missing
            read_header(path)
    except (DataError, OSError):
        return False
    return kind is not None


def decode(data: bytes, channels: int, levels: Range | None = None) -> UInt8[Tensor, "c h w"]:
    """The pixels of an encoded image, with 1 or 3 channels, or 4 with alpha as the last.

    16-bit values are scaled from `levels`, or from the range of this image. Raises DataError with the reason if the image cannot be read.
    """
    fast = _torchcodec() if channels in _FAST_MODES else None
    with reasons(data):
        if (
            fast
            and (plain := plain_file(data))
            and plain.size.height * plain.size.width <= _MAX_PIXELS
        ):
            return fast[plain.format](data, mode=_FAST_MODES[channels])
        if is_heic(data[:HEAD]):
            return _from_heic(data, channels)
        with open_image(io.BytesIO(data)) as image:
            _check(image)
            if fast and _plain(image):
                return fast[image.format](data, mode=_FAST_MODES[channels])
            pixels = np.array(converted(upright(image, data, levels), channels))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def picture_pixels(
    image: Image.Image, channels: int, levels: Range | None = None
) -> UInt8[Tensor, "c h w"]:
    """The pixels of a picture that a program has opened, by the policy of `decode`; the picture stays as it is.

    Of a file with 16 bits per colour, Pillow keeps 8, which are read as they are.
    """
    with reasons(io.BytesIO()):
        image.load()  # a file that is cut off is noticed here
        deep = is_deep(image) and image.mode[0] == "I"
        if image.mode in ("I", "F") and not deep:
            _check(image)
        if deep:
            values = grey_values(image)
            levels = range_of([sample(values)]) if levels is None else levels
            image = Image.fromarray(scaled(values, levels))
        pixels = np.array(converted(ImageOps.exif_transpose(image), channels))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def raw_pixels(data: bytes) -> Shaped[NDArray[Any], "h w c"]:
    """The values of an image as stored, uint8 or uint16, upright, with the channels that `Header.bands` counts."""
    bands = read_header(io.BytesIO(data)).bands

    def values(image: Image.Image) -> Shaped[NDArray[Any], "h w c"]:
        if is_deep(image):
            deep = _deep(image, data)
            return (
                deep if deep.shape[-1] == bands else np.repeat(deep, [3, 1], axis=-1)
            )  # grey with alpha
        mode = "RGBA" if bands == 4 else "RGB" if bands == 3 else "L"
        pixels = np.array(ImageOps.exif_transpose(image).convert(mode))
        return pixels.reshape(*pixels.shape[:2], bands)

    if is_heic(data[:HEAD]):
        return decode(data, 3).permute(1, 2, 0).numpy()
    return _looked_at(data, values)


def deep_sample(data: bytes) -> UInt16[NDArray[Any], "h w c"]:
    """A sample of the values of a 16-bit image; raises DataError with the reason if it cannot be read."""
    return _looked_at(data, lambda image: sample(_deep(image, data)))


def alpha_of(data: bytes) -> tuple[int, int]:
    """The lowest and the highest alpha of an image; raises DataError with the reason if it cannot be read."""
    alpha = _looked_at(data, lambda image: np.array(image.convert("RGBA").getchannel("A")))
    return int(alpha.min()), int(alpha.max())


def _deep(image: Image.Image, data: bytes) -> UInt16[NDArray[Any], "h w c"]:
    """The values of an opened 16-bit image, upright."""
    if image.format != "PNG":
        return grey_values(image)
    turned, stated = Image.Exif(), image.getexif().get(ExifTags.Base.Orientation, 1)
    turned.load(image.info.get("exif", b""))
    if fast := _torchcodec():
        pixels = fast["PNG"](data, mode="UNCHANGED", output_dtype="auto")
    else:  # Pillow cuts colours to 8 bits
        from torchvision.io import decode_png

        with warnings.catch_warnings():  # that torchcodec will take its place
            warnings.simplefilter("ignore")
            file = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            pixels = decode_png(file, apply_exif_orientation=True)
    values = pixels.permute(1, 2, 0).numpy()
    if stated == turned.get(ExifTags.Base.Orientation, 1):  # which both decoders have applied
        return values
    return TURNS.get(stated, lambda array: array)(values)


def _looked_at(data: bytes, look: Callable[[Image.Image], T]) -> T:
    with reasons(data), open_image(io.BytesIO(data)) as image:
        _check(image)
        return look(image)


@contextmanager
def reasons(data: bytes | Path | io.BytesIO) -> Generator[None]:
    """Whatever a decoder raises for an image becomes a DataError with the reason."""
    try:
        yield
    except UnidentifiedImageError:
        raise DataError(unknown_format(first_bytes(data))) from None
    except _UNREADABLE as error:
        raise DataError(_reason(error)) from None


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

    def format_of_plain(image: Image.Image) -> str | None:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return image.format if _plain(image) and not turned else None

    with suppress(DataError):  # such as EXIF that is damaged
        return None if is_heic(data[:HEAD]) else _looked_at(data, format_of_plain)
    return None


def jpeg_or_png(data: bytes) -> str:
    """JPEG for pictures that were compressed as photographs already; PNG, without loss, for all others."""
    if is_heic(data[:HEAD]):
        return "JPEG"
    with open_image(io.BytesIO(data)) as image:
        return "JPEG" if image.format in ("JPEG", "MPO") else "PNG"


def _torchcodec() -> dict[str | None, Any] | None:
    """torchcodec's decoders by format, or None if it is not installed or cannot load its libraries."""
    try:
        from torchcodec.decoders import decode_heic, decode_jpeg, decode_png
    except (ImportError, OSError, RuntimeError):
        return None
    return {"JPEG": decode_jpeg, "PNG": decode_png, "HEIC": decode_heic}


def upright(image: Image.Image, data: bytes, levels: Range | None) -> Image.Image:
    """An opened image as its orientation says, with 8 bits per value. `levels` become 0 and 255; None measures them."""
    if not is_deep(image):
        return ImageOps.exif_transpose(image)
    values = _deep(image, data)
    return Image.fromarray(scaled(values, range_of([sample(values)]) if levels is None else levels))


def converted(image: Image.Image, channels: int) -> Image.Image:
    """An 8-bit image with these channels; transparency is laid on white if alpha is not one of them.

    Raises:
        DataError: if alpha is one of them, and the image has none.
    """
    if channels not in _FAST_MODES and not image.has_transparency_data:
        raise DataError("has no alpha channel, which the other images have")
    if channels in _FAST_MODES and image.has_transparency_data:
        overlay = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay)
    return image.convert(MODES[channels])


def _from_heic(data: bytes, channels: int) -> UInt8[Tensor, "c h w"]:
    decode_heic = _heic_decoder()
    size = heic_size(io.BytesIO(data))
    if size.height * size.width > _MAX_PIXELS:
        raise DataError(_too_large(size))
    return decode_heic(data, mode=_FAST_MODES.get(channels, "RGB_ALPHA"))


def _heic_decoder() -> Any:
    """torchcodec's decoder of HEIC; raises DataError if it is missing."""
    if fast := _torchcodec():
        return fast["HEIC"]
    raise DataError("a HEIC picture, which needs a package: pip install torchcodec")


def _check(image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(_too_large(Size(image.height, image.width)))
    if is_cut(image):
        raise DataError(
            f"has 16 bits per colour in {image.format}; --data-kind tiff reads TIFF files of such images"
        )
    if image.mode in ("I", "F") and not is_deep(image):
        raise DataError(
            f"pixels of mode {image.mode} (32 bits each) have no known range; --data-kind tiff reads TIFF files with "
            "any values"
        )


def _too_large(size: Size) -> str:
    return f"{size.width} x {size.height} pixels are more than {_MAX_PIXELS:,}"


def _plain(image: Image.Image) -> bool:
    """Whether torchcodec decodes this file as our policy says."""
    if image.format not in ("JPEG", "PNG") or image.mode not in ("L", "RGB") or is_deep(image):
        return False
    if getattr(image, "is_animated", False) or "transparency" in image.info:
        return False
    # Pillow also finds an orientation in XMP and in text chunks, torchcodec only in EXIF
    stated = image.format == "JPEG" and not turned_by_xmp(image.info.get("xmp", b""))
    return stated or image.getexif().get(ExifTags.Base.Orientation, 1) == 1


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return str(error).partition(", could")[0]
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied)"
    # some errors of Pillow have several arguments, whose str() is a tuple
    words = next((word for word in error.args if isinstance(word, str)), "")
    first = first_line(Exception(words) if words else error)
    first = re.sub(r"^\w+, \S+\.cpp:\d+, ", "", first)  # the line of torchcodec's source
    return f"damaged or truncated ({first})"
