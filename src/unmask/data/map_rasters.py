"""Rasters of maps: windows of a picture, of a tiled TIFF file, or of a folder of web tiles, and which pixels are holes."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.band_files import no_data_of, opened_tiff, silent
from unmask.data.decode import decode, read_header
from unmask.errors import DataError, first_line

_KEPT = 128 * 2**20  # bytes of decoded segments that a process keeps
_HASHED = 2**22  # bytes that are read at a time
_ALPHA = (1, 2)  # TIFF's kinds of extra samples that are alpha
_MIN_IS_WHITE, _PALETTE = 0, 3  # TIFF's photometric interpretations


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


@runtime_checkable
class Raster(Protocol):
    """A map's pixels. `read` takes windows inside of the raster."""

    size: Size
    channels: int
    dtype: np.dtype[Any]
    has_holes: bool
    """Whether there may be holes."""

    def read(self, window: Window) -> Pixels:
        """Raises DataError if the file is damaged."""
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
        self._values, transparent = _decoded(data)
        self._holes = _no_data(self._values, no_data) | transparent
        self._hash = hashlib.blake2b(data, digest_size=16).hexdigest()
        self.channels, self.dtype = len(self._values), self._values.dtype
        self.size = Size(*self._values.shape[1:])
        self.has_holes = bool(self._holes.any())

    def read(self, window: Window) -> Pixels:
        """See `Raster`."""
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        return Pixels(self._values[:, rows, columns], self._holes[rows, columns])

    def fingerprint(self) -> str:
        """See `Raster`."""
        return self._hash


class TiffRaster:
    """The first page of a TIFF file; of its tiles or strips, only those that a window touches are decoded."""

    def __init__(self, path: Path, no_data: float | None) -> None:
        """Reads no pixels. Raises DataError for a damaged file, ResourceError without tifffile."""
        self._path = path
        self._segments: _Segments | None = None
        self._recent: Recent = Recent()
        with opened_tiff(path) as tiff, silent("tifffile"):
            page = tiff.pages[0]
            self.size = Size(page.imagelength, page.imagewidth)
            self.dtype = np.dtype(page.dtype)
            samples = page.samplesperpixel
            extra = page.extrasamples if samples in (2, 4) else ()
            self._alpha = samples - 1 if extra and extra[-1] in _ALPHA else None
            self._no_data = no_data if no_data is not None else no_data_of(tiff)
            if page.photometric in (_PALETTE, _MIN_IS_WHITE) or self.dtype.kind not in "uif":
                raise DataError(
                    f"{path} is stored with a palette, with 0 as white, or with values of type {self.dtype}; convert it to "
                    "plain grey, colour or bands"
                )
            self._separate = samples > 1 and page.planarconfig == 2
            self._segment = (
                (page.tilelength, page.tilewidth)
                if page.is_tiled
                else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
            )
            sparse = 0 in page.databytecounts
        self.channels = samples - (self._alpha is not None)
        self.has_holes = sparse or self._alpha is not None or self._no_data is not None
        self.has_holes = self.has_holes or self.dtype.kind == "f"

    def __getstate__(self) -> dict[str, Any]:
        """Without what another process cannot use."""
        return {**self.__dict__, "_segments": None, "_recent": Recent()}

    def read(self, window: Window) -> Pixels:
        """See `Raster`."""
        height, width = self._segment
        samples = self.channels + (self._alpha is not None)
        values = np.empty((samples, window.height, window.width), self.dtype)
        holes = np.zeros((window.height, window.width), bool)
        for row in range(window.top // height, -(-(window.top + window.height) // height)):
            for column in range(window.left // width, -(-(window.left + window.width) // width)):
                inside, part = _overlap(window, row * height, column * width, height, width)
                segment = self._recent.get(
                    (row, column), lambda r=row, c=column: self._decoded(r, c)
                )
                if segment is None:
                    values[:, *inside], holes[inside] = 0, True
                else:
                    values[:, *inside] = segment[:, *part]
        if self._alpha is not None:
            holes |= values[self._alpha] == 0
            values = np.delete(values, self._alpha, 0)
        return Pixels(values, holes | _no_data(values, self._no_data))

    def fingerprint(self) -> str:
        """See `Raster`."""
        return hash_of_file(self._path)

    def _decoded(self, row: int, column: int) -> Shaped[NDArray[Any], "c h w"] | None:
        """A tile or a strip with all its samples; None if the file leaves it out."""
        found = self._found()
        across = -(-self.size.width // self._segment[1])
        down = -(-self.size.height // self._segment[0])
        planes = self.channels + (self._alpha is not None) if self._separate else 1
        parts: list[NDArray[Any]] = []
        for plane in range(planes):
            number = (plane * down + row) * across + column
            try:
                with self._path.open("rb") as file, silent("tifffile"):
                    file.seek(found.offsets[number])
                    data = file.read(found.counts[number])
                    array, _, _ = found.decode(data or None, number, jpegtables=found.jpegtables)
            except Exception as error:  # tifffile and its codecs raise exceptions of many types
                raise DataError(f"{self._path} is damaged ({first_line(error)})") from None
            if array is None:
                return None
            parts.append(np.moveaxis(array[0], -1, 0))
        return np.concatenate(parts)

    def _found(self) -> "_Segments":
        """Where the segments lie; read once in each process, because their decoder cannot be sent to another."""
        if self._segments is None:
            with opened_tiff(self._path) as tiff, silent("tifffile"):
                page = tiff.pages[0]
                self._segments = _Segments(
                    page.dataoffsets, page.databytecounts, page.jpegtables, page.decode
                )
        return self._segments


class _Segments(NamedTuple):
    """The tiles or strips of a page."""

    offsets: Sequence[int]
    counts: Sequence[int]
    """Bytes of each; 0 where the file leaves one out."""
    jpegtables: bytes | None
    decode: Callable[..., Any]


class MosaicRaster:
    """Pictures of equal size side by side, such as tiles of a web map; missing ones and transparent pixels are holes."""

    def __init__(
        self,
        tiles: dict[tuple[int, int], Callable[[], bytes]],
        side: int,
        where: str,
        digest: str,
    ) -> None:
        """`tiles` holds the file of each place (row, column), counted from the first."""
        self._tiles, self._side, self._where, self._digest = tiles, side, where, digest
        rows, columns = (max(key[axis] for key in tiles) + 1 for axis in (0, 1))
        self.size, self.channels = Size(rows * side, columns * side), 3
        self.dtype, self.has_holes = np.dtype(np.uint8), True
        self._recent: Recent = Recent()

    def read(self, window: Window) -> Pixels:
        """See `Raster`."""
        side = self._side
        values = np.zeros((self.channels, window.height, window.width), np.uint8)
        holes = np.ones((window.height, window.width), bool)
        for row in range(window.top // side, -(-(window.top + window.height) // side)):
            for column in range(window.left // side, -(-(window.left + window.width) // side)):
                key = (row, column)
                if key not in self._tiles:
                    continue
                inside, part = _overlap(window, row * side, column * side, side, side)
                tile = self._recent.get(key, lambda key=key: self._decoded(key))
                assert tile is not None
                values[:, *inside] = tile[: self.channels, *part]
                holes[inside] = tile[-1, *part] == 0
        return Pixels(values, holes)

    def fingerprint(self) -> str:
        """See `Raster`."""
        return self._digest

    def _decoded(self, key: tuple[int, int]) -> Shaped[NDArray[Any], "c h w"]:
        """A tile, with alpha as its last channel."""
        pixels, transparent = _decoded(self._tiles[key]())
        if pixels.shape[1:] != (self._side, self._side):
            raise DataError(
                f"{self._where} has tiles of {self._side} pixels, and one of {pixels.shape[2]} x {pixels.shape[1]}; keep one size"
            )
        shown = np.broadcast_to(pixels[: self.channels], (self.channels, self._side, self._side))
        return np.concatenate([shown, 255 * ~transparent[None]]).astype(np.uint8)


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


def _decoded(
    data: bytes,
) -> tuple[UInt8[NDArray[np.uint8], "c h w"], Bool[NDArray[np.bool_], "h w"]]:
    """An encoded picture in grey or colour, and where it is transparent."""
    header = read_header(BytesIO(data))
    if not header.alpha:
        pixels = decode(data, 1 if header.grey else 3).numpy()
        return pixels, np.zeros(pixels.shape[1:], bool)
    pixels = decode(data, 4).numpy()
    return pixels[: 1 if header.grey else 3], pixels[3] == 0


def hash_of_file(path: Path) -> str:
    """BLAKE2b of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_HASHED):
            digest.update(block)
    return digest.hexdigest()


Slices = tuple[slice, slice]


def _overlap(window: Window, top: int, left: int, height: int, width: int) -> tuple[Slices, Slices]:
    """Rows and columns of what a window and a part have in common: in the window, and in the part."""
    first_row, last_row = max(top, window.top), min(top + height, window.top + window.height)
    first, last = max(left, window.left), min(left + width, window.left + window.width)
    inside = (
        slice(first_row - window.top, last_row - window.top),
        slice(first - window.left, last - window.left),
    )
    return inside, (slice(first_row - top, last_row - top), slice(first - left, last - left))


def _no_data(
    values: Shaped[NDArray[Any], "c h w"], no_data: float | None
) -> Bool[NDArray[np.bool_], "h w"]:
    """Pixels whose channels all hold the no-data value, or of which one is not finite."""
    holes = np.zeros(values.shape[1:], bool) if no_data is None else (values == no_data).all(0)
    return holes if values.dtype.kind != "f" else holes | ~np.isfinite(values).all(0)
