"""Maps in TIFF files: of their tiles or strips, only those that a window touches are decoded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.band_files import no_data_of, opened_tiff, silent
from unmask.data.map_facts import hash_of_file, kept_cells
from unmask.data.map_rasters import (
    Pixels,
    Recent,
    Window,
    cells_of_bands,
    no_data_in,
    overlap,
)
from unmask.errors import DataError, first_line

_ALPHA = (1, 2)  # kinds of extra samples that are alpha
_MIN_IS_WHITE, _PALETTE = 0, 3  # photometric interpretations
_MASK, _REDUCED = 4, 1  # bits of the kind of a page: a mask of another page, and a smaller copy


class TiffRaster:
    """The first page of a TIFF file. Holes are pixels without a value, of alpha 0, or outside of the mask that GDAL writes."""

    def __init__(self, path: Path, no_data: float | None) -> None:
        """Reads no pixels. Raises DataError for a damaged file, ResourceError without tifffile."""
        self._path = path
        with opened_tiff(path) as tiff, silent("tifffile"):
            page = tiff.pages[0]
            self._page = _Page.of(path, page, 0)
            self.size, self.dtype = self._page.size, self._page.dtype
            extra = tuple(page.extrasamples)
            first_extra = self._page.samples - len(extra)
            self._alpha = next(
                (first_extra + i for i, kind in enumerate(extra) if kind in _ALPHA), None
            )
            self._no_data = no_data if no_data is not None else no_data_of(tiff)
            if page.photometric in (_PALETTE, _MIN_IS_WHITE) or self.dtype.kind not in "uif":
                raise DataError(
                    f"{path} is stored with a palette, with 0 as white, or with values of type {self.dtype}; convert it to "
                    "plain grey, colour or bands"
                )
            self._mask = _mask_of(path, tiff, self.size)
            sparse = 0 in page.databytecounts
        self.channels = self._page.samples - (self._alpha is not None)
        self.has_holes = sparse or self._alpha is not None or self._no_data is not None
        self.has_holes = self.has_holes or self.dtype.kind == "f" or self._mask is not None

    def read(self, window: Window) -> Pixels:
        """See `Raster`."""
        values, holes = self._page.read(window)
        if self._alpha is not None:
            holes |= values[self._alpha] == 0
            values = np.delete(values, self._alpha, 0)
        if self._mask is not None:
            shown, missing = self._mask.read(window)
            holes |= missing | (shown[0] == 0)
        return Pixels(values, holes | no_data_in(values, self._no_data))

    def hole_cells(self, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
        """See `Raster`; looked for once, and kept until the file changes."""
        key = [self.fingerprint(), self._no_data, cell]
        return kept_cells(key, self.size, cell, lambda: cells_of_bands(self, cell))

    def fingerprint(self) -> str:
        """See `Raster`."""
        return hash_of_file(self._path)


def _mask_of(path: Path, tiff: Any, size: Size) -> "_Page | None":
    """The page that says where the first one shows something (0: nowhere), as GDAL writes it into the same file."""
    for number, page in enumerate(tiff.pages):
        kind = int(page.tags.valueof(254, default=0))  # NewSubfileType
        if (
            kind & _MASK
            and not kind & _REDUCED
            and (page.imagelength, page.imagewidth) == tuple(size)
        ):
            return _Page.of(path, page, number)
    return None


class _Segments(NamedTuple):
    """The tiles or strips of a page."""

    offsets: Sequence[int]
    counts: Sequence[int]
    """Bytes of each; 0 where the file leaves one out."""
    jpegtables: bytes | None
    decode: Callable[..., Any]


class _Page:
    """A page of a TIFF file by windows."""

    def __init__(
        self,
        path: Path,
        number: int,
        size: Size,
        dtype: Any,
        samples: int,
        segment: Size,
        separate: bool,
    ) -> None:
        self._path, self._number = path, number
        self.size, self.dtype, self.samples = size, np.dtype(dtype), samples
        self._segment, self._separate = segment, separate
        self._segments: _Segments | None = None
        self._recent: Recent = Recent()

    @classmethod
    def of(cls, path: Path, page: Any, number: int) -> "_Page":
        """A page that tifffile has opened."""
        samples = page.samplesperpixel
        strip = Size(min(page.rowsperstrip, page.imagelength), page.imagewidth)
        return cls(
            path,
            number,
            Size(page.imagelength, page.imagewidth),
            page.dtype,
            samples,
            Size(page.tilelength, page.tilewidth) if page.is_tiled else strip,
            samples > 1 and page.planarconfig == 2,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without what another process cannot use."""
        return {**self.__dict__, "_segments": None, "_recent": Recent()}

    def read(
        self, window: Window
    ) -> tuple[Shaped[NDArray[Any], "c h w"], Bool[NDArray[np.bool_], "h w"]]:
        """The values of all samples, and where the file holds none."""
        height, width = self._segment
        values = np.empty((self.samples, window.height, window.width), self.dtype)
        holes = np.zeros((window.height, window.width), bool)
        for row in range(window.top // height, -(-(window.top + window.height) // height)):
            for column in range(window.left // width, -(-(window.left + window.width) // width)):
                inside, part = overlap(window, row * height, column * width, height, width)
                segment = self._recent.get(
                    (row, column), lambda r=row, c=column: self._decoded(r, c)
                )
                if segment is None:
                    values[:, *inside], holes[inside] = 0, True
                else:
                    values[:, *inside] = segment[:, *part]
        return values, holes

    def _decoded(self, row: int, column: int) -> Shaped[NDArray[Any], "c h w"] | None:
        """A tile or a strip with all its samples; None if the file leaves it out."""
        found = self._found()
        across = -(-self.size.width // self._segment.width)
        down = -(-self.size.height // self._segment.height)
        parts: list[NDArray[Any]] = []
        for plane in range(self.samples if self._separate else 1):
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

    def _found(self) -> _Segments:
        """Where the segments lie; read once in each process, because their decoder cannot be sent to another."""
        if self._segments is None:
            with opened_tiff(self._path) as tiff, silent("tifffile"):
                page = tiff.pages[self._number]
                self._segments = _Segments(
                    page.dataoffsets, page.databytecounts, page.jpegtables, page.decode
                )
        return self._segments
