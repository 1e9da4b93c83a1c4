"""Which files are pictures: by their endings, and by their first bytes where the ending says nothing."""

import io
import os
import stat
import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from unmask.contracts import Size
from unmask.errors import DataError

FIRST_ENDINGS = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif"),
        *(".tif", ".tiff", ".avif", ".ppm", ".pgm", ".jp2"),
    ]
)
"""What older versions read, for runs that began with one."""

IMAGE_ENDINGS = FIRST_ENDINGS | {
    *(".jfif", ".jif", ".apng", ".dib", ".avifs", ".heic", ".heif", ".hif", ".jxl"),
    *(".pbm", ".pnm", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"),
}
"""Files with these endings are read as images; their content then decides the format."""

HEAD = 64
"""First bytes of a file, enough to tell its format."""

_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "JXL", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may try. Never EPS: PostScript is a program, which Pillow would have Ghostscript run."""

_HEIC = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"])
_JXL = b"\xff\x0a", b"\x00\x00\x00\x0cJXL "
_HEADER_BYTES = 2**16  # the boxes that state the size of a HEIC picture come before its pixels


@contextmanager
def open_image(data: Any) -> Generator[Image.Image]:
    """A path or an open file as Pillow's image, pixels not yet read; in one of the formats that we read, by content.

    Pillow's warnings, of large pictures and of odd tags, are not shown: what matters ends in an error.

    Raises:
        OSError: if it cannot be read; `UnidentifiedImageError` if it is in no such format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(data, formats=list(_openers())) as image:
            yield image


def format_of(head: bytes) -> str | None:
    """The format of a picture by its first bytes, or None. Only the header, read later, can confirm it."""
    head = head.ljust(HEAD, b"\0")  # some of Pillow's tests expect a few bytes
    if head.startswith(_JXL):
        return "JXL"
    if is_heic(head):
        return "HEIC"
    for name, accepts in _openers().items():
        if accepts is not None and accepts(head) is True:
            return name
    return None


def is_heic(head: bytes) -> bool:
    """Whether a file is HEIC, which torchcodec reads and Pillow does not."""
    if head[4:8] != b"ftyp":
        return False
    (size,) = struct.unpack_from(">I", head)
    brands = {head[at : at + 4] for at in (8, *range(16, min(size, len(head)) - 3, 4))}
    return bool(brands & _HEIC) and not brands & {b"avif", b"avis"}


def heic_size(data: Path | io.BytesIO) -> Size:
    """Height and width of a HEIC picture from its `ispe` boxes: the largest, as others are tiles or thumbnails.

    Raises:
        DataError: if it states none.
    """
    head = first_bytes(data, _HEADER_BYTES)
    sizes: list[Size] = []
    at = head.find(b"ispe")
    while 0 <= at <= len(head) - 16:
        width, height = struct.unpack_from(">II", head, at + 8)
        sizes.append(Size(height, width))
        at = head.find(b"ispe", at + 4)
    size = max(sizes, key=lambda size: size.height * size.width, default=Size(0, 0))
    if not min(size):
        raise DataError("damaged or truncated (a HEIC file that does not state its size)")
    return size


def first_bytes(data: bytes | Path | io.BytesIO, count: int = HEAD) -> bytes:
    """The first bytes of a file; none of anything but a regular file, which could keep us waiting."""
    if not isinstance(data, Path):
        return (data if isinstance(data, bytes) else data.getvalue())[:count]
    handle = os.open(data, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        return os.read(handle, count) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    finally:
        os.close(handle)


def reads_jxl() -> bool:
    """Whether JPEG XL is read here."""
    return "JXL" in _openers()


def unknown_format(head: bytes) -> str:
    """Why Pillow does not know a file, in words."""
    if format_of(head) == "JXL":
        return "a JPEG XL picture, which needs a package: pip install pillow-jxl-plugin"
    if format_of(head) == "TIFF":
        return "a TIFF file of a layout that pictures do not have, or damaged; --data-kind tiff reads any channels"
    return "not an image of a known format"


@cache
def _openers() -> dict[str, Any]:
    """Pillow's tests of the first bytes, for the formats that we read and that this machine has a decoder for."""
    if "JXL" not in Image.OPEN:
        with suppress(ImportError):  # optional; registers JPEG XL with Pillow
            import_module("pillow_jxl")
    Image.init()
    return {name: Image.OPEN[name][1] for name in _FORMATS if name in Image.OPEN}
