"""Rasters of maps: windows of pixels, and which of them are holes; here those of one picture."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.decode import decode, read_header

_KEPT = 128 * 2**20  # bytes of decoded segments that a process keeps
_BAND_ROWS = 512  # rows that are looked at together


class Window(NamedTuple):
    """Whole pixels of a raster."""

    left: int
    top: int
    width: int
    height: int


class Pixels(NamedTuple):
    """What a window shows."""

    values: Shaped[NDArray[Any], "c h w"]
    holes: Bool[NDArray[np.bool_], "h w"]
    """Where the map shows nothing."""
    broken: str = ""
    """Why a part of it cannot be read, with the name of its file; such parts are holes."""


@runtime_checkable
class Raster(Protocol):
    """A map's pixels. `read` takes windows inside of the raster."""

    size: Size
    channels: int
    dtype: np.dtype[Any]
    has_holes: bool
    """Whether there may be holes."""

    def read(self, window: Window) -> Pixels:
        """Raises DataError if the file is damaged, unless it is one of many that make up the map."""
        ...

    def hole_cells(self, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
        """Which squares of `cell` pixels have a hole; parts that cannot be read have none here."""
        ...

    def fingerprint(self) -> str:
        """A hash of the content."""
        ...


class PictureRaster:
    """A picture that is decoded once, and kept; transparent pixels are holes."""

    def __init__(self, path: Path, no_data: float | None) -> None:
        """Raises DataError if it cannot be decoded."""
        self._path, self._no_data = path, no_data
        data = path.read_bytes()
        self._values, transparent = decoded(data)
        self._holes = no_data_in(self._values, no_data) | transparent
        self._hash = hashlib.blake2b(data, digest_size=16).hexdigest()
        self.channels, self.dtype = len(self._values), self._values.dtype
        self.size = Size(*self._values.shape[1:])
        self.has_holes = bool(self._holes.any())

    def read(self, window: Window) -> Pixels:
        """See `Raster`."""
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        return Pixels(self._values[:, rows, columns], self._holes[rows, columns])

    def hole_cells(self, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
        """See `Raster`."""
        return cells_of_bands(self, cell)

    def fingerprint(self) -> str:
        """See `Raster`."""
        return self._hash


class Recent:
    """Decoded parts that were used last, up to a number of bytes."""

    def __init__(self) -> None:
        self._parts: OrderedDict[Any, NDArray[Any] | None] = OrderedDict()
        self._bytes = 0

    def get(self, key: Any, make: Callable[[], NDArray[Any] | None]) -> NDArray[Any] | None:
        """A part, decoded now if it is not kept."""
        if key in self._parts:
            self._parts.move_to_end(key)
            return self._parts[key]
        part = self._parts[key] = make()
        self._bytes += 0 if part is None else part.nbytes
        while self._bytes > _KEPT and len(self._parts) > 1:
            _, oldest = self._parts.popitem(last=False)
            self._bytes -= 0 if oldest is None else oldest.nbytes
        return part


def decoded(
    data: bytes,
) -> tuple[UInt8[NDArray[np.uint8], "c h w"], Bool[NDArray[np.bool_], "h w"]]:
    """An encoded picture in grey or colour, and where it is transparent."""
    header = read_header(BytesIO(data))
    if not header.alpha:
        pixels = decode(data, 1 if header.grey else 3).numpy()
        return pixels, np.zeros(pixels.shape[1:], bool)
    pixels = decode(data, 4).numpy()
    return pixels[: 1 if header.grey else 3], pixels[3] == 0


def cells_of_bands(raster: Raster, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
    """The cells with holes of a raster that is read in bands of rows."""
    height, width = raster.size
    bad = no_cells(raster.size, cell)
    step = -(-_BAND_ROWS // cell) * cell
    for top in range(0, height, step):
        holes = raster.read(Window(0, top, width, min(step, height - top))).holes
        if holes.any():
            y, x = np.nonzero(holes)
            bad[(y + top) // cell, x // cell] = True
    return bad


def no_cells(size: Size, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
    """Cells without holes."""
    return np.zeros((-(-size.height // cell), -(-size.width // cell)), bool)


Slices = tuple[slice, slice]


def overlap(window: Window, top: int, left: int, height: int, width: int) -> tuple[Slices, Slices]:
    """Rows and columns of what a window and a part have in common: in the window, and in the part."""
    first_row, last_row = max(top, window.top), min(top + height, window.top + window.height)
    first, last = max(left, window.left), min(left + width, window.left + window.width)
    inside = (
        slice(first_row - window.top, last_row - window.top),
        slice(first - window.left, last - window.left),
    )
    return inside, (slice(first_row - top, last_row - top), slice(first - left, last - left))


def no_data_in(
    values: Shaped[NDArray[Any], "c h w"], no_data: float | None
) -> Bool[NDArray[np.bool_], "h w"]:
    """Pixels whose channels all hold the no-data value, or of which one is not finite."""
    holes = np.zeros(values.shape[1:], bool) if no_data is None else (values == no_data).all(0)
    return holes if values.dtype.kind != "f" else holes | ~np.isfinite(values).all(0)
