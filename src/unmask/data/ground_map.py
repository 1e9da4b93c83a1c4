"""A map as images: square tiles of a ground size in metres, cut with overlap, each with its place on the Earth."""

import hashlib
from collections import Counter
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import AnyAnnotations, Unlabelled
from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.cache import size_and_time
from unmask.data.geometry import resize
from unmask.data.map_files import OpenedMap, open_map
from unmask.data.map_rasters import Pixels, Raster, Window
from unmask.errors import DataError
from unmask.spec import within
from unmask.traits import Places

_USUAL_PIXELS = 224  # of a tile, if no ground size is asked for
_LEAST_PIXELS = 8
_ACROSS = 3  # tiles side by side, at least, if no ground size is asked for
_CELLS = 16  # cells of a tile's side in which holes are counted
_OVERVIEW_ROWS = 512  # rows that are read together
_MOST_TILES = 20_000_000
_UNEVEN = 1.01
"""Ratio of a pixel's sides on the ground above which tiles are resampled; Web Mercator, and degrees at the equator, reach 1.007."""
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in decode


@dataclass(frozen=True, kw_only=True)
class GroundReading:
    """How a map is cut into tiles, and where it lies if it does not say so itself."""

    tile_metres: tuple[float, ...] = ()
    """Ground sizes of tiles in metres; that of 224 pixels of the map if empty."""

    tile_overlap: float = 0.5
    """Share of a tile's side by which neighbours overlap."""

    crs: str | None = None
    """The reference system of a world file or of the corners, such as EPSG:32651."""

    corners: tuple[float, ...] = ()
    """Latitude and longitude of the top left and bottom right corner, or of all four, clockwise."""

    tms: bool = False
    """Whether rows of web tiles count from the south."""

    map_zoom: int | None = None
    """The zoom of web tiles; the finest if there are several."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "tile_metres")
        within(self, "[0, 1)", "tile_overlap")
        within(self, "[0, 30]", "map_zoom")


@dataclass(frozen=True, kw_only=True)
class GroundMap(GroundReading):
    """A map: GeoTIFF, a picture with a world file or with corners, web tiles in a folder or a PMTiles file, or a folder of pictures with
    a CSV of their places."""

    path: str
    """Path of the file or folder."""

    channels: tuple[int, ...] = ()
    """Channels to use, counted from 1; all if empty."""

    no_data: float | None = None
    """The value of pixels where the map shows nothing; GeoTIFFs state their own."""

    def splits(self) -> tuple[str, ...]:
        """("train",): the whole map."""
        return ("train",)

    def opened(self) -> OpenedMap:
        """The map itself.

        Raises:
            DataError: if it is damaged, or nothing says where it lies.
            ResourceError: if a package is missing.
        """
        return open_map(
            Path(self.path).expanduser(),
            crs=self.crs,
            corners=self.corners,
            tms=self.tms,
            zoom=self.map_zoom,
            no_data=self.no_data,
        )

    def open(self, split: str = "train") -> "MapTiles":
        """Cut the map; holes are looked for, which reads maps that may have some.

        Raises:
            DataError: see `opened`; also if tiles of this size are larger than the map, or nothing but holes is left.
        """
        assert split == "train"
        return MapTiles(self, self.opened())


class MapTiles:
    """See `GroundMap`. Tiles are upright in the raster; those that touch a hole are left out.

    Where pixels are not square on the ground, as in degrees away from the equator, a tile is reduced to as many pixels across as down:
    views keep proportions, and would cut off its sides.
    """

    in_memory = False
    annotations: AnyAnnotations = Unlabelled()

    def __init__(self, spec: GroundMap, opened: OpenedMap) -> None:
        self.raster, self.georeference = opened.raster, opened.georeference
        self.where, self._spec = spec.path, spec
        self._chosen = [channel - 1 for channel in spec.channels]
        if self._chosen and max(self._chosen) >= self.raster.channels:
            raise DataError(
                f"{spec.path} has {self.raster.channels} channels; channel {max(self._chosen) + 1} does not exist"
            )
        self.channels = len(self._chosen) or self.raster.channels
        self._luma = False
        self.values: Values = "uint8" if self.raster.dtype == np.uint8 else "float32"
        self.refused: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()
        self.beside: Counter[str] = Counter()
        sizes = spec.tile_metres or (usual_size(opened),)
        grids = [_grid(opened, metres, spec.tile_overlap, spec.path) for metres in sizes]
        free, left_out = _without_holes(self.raster, grids)
        self.windows = np.concatenate([grid.windows for grid in free])
        self._uneven = np.concatenate([grid.uneven for grid in free])
        if not len(self.windows):
            raise DataError(
                f"{spec.path}: every tile of {sizes[0]:g} m touches a hole (pixels without data); take smaller --tile-metres"
            )
        self._places = Places(
            np.concatenate(
                [opened.georeference.to_degrees(_middles(grid.windows)) for grid in free]
            ),
            np.concatenate([np.full(len(grid.windows), grid.metres) for grid in free]),
            np.concatenate([grid.cells for grid in free]),
        )
        self.more_notes = opened.notes
        if left_out:
            self.more_notes += (f"{left_out:,} tiles touch a hole of the map, and are left out",)
        self.fingerprint = _hash(
            [
                self.raster.fingerprint(),
                opened.georeference,
                sizes,
                spec.tile_overlap,
                self._chosen,
                spec.no_data,
                *(["uneven"] if self._uneven.any() else []),
            ]
        )
        path = Path(spec.path).expanduser()
        self.state = _hash(
            [str(path.absolute()), self.fingerprint, size_and_time(path) if path.is_file() else 0]
        )
        self.smallest_side = int(self.windows[:, 2:].min())

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Noted`."""
        return self.more_notes

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, position: int) -> Sample:
        window = Window(*self.windows[position].tolist())
        pixels = self.raster.read(window)
        if pixels.broken:
            raise DataError(pixels.broken)
        image = self._as_read(pixels.values)
        if bool((image == image[:, :1, :1]).all()):
            raise DataError("shows nothing but one colour")
        if self._uneven[position]:
            side = min(window.width, window.height)
            image = resize(image, Size(side, side))
        return Sample(image, None)

    def pixels(self, window: Window) -> Float[Tensor, "c h w"]:
        """A window of the map, in the units of tiles; NaN where the map shows nothing."""
        return self._marked(self.raster.read(window))

    def _marked(self, pixels: Pixels) -> Float[Tensor, "c h w"]:
        """Pixels in the units of tiles, with NaN in holes."""
        image = self._as_read(pixels.values).float()
        return image.masked_fill(torch.from_numpy(pixels.holes.copy()), torch.nan)

    def _as_read(self, values: NDArray[Any]) -> Tensor:
        if self._chosen:
            values = values[self._chosen]
        if values.dtype != np.uint8:
            values = values.astype(np.float32)
        image = torch.from_numpy(np.ascontiguousarray(values))
        if self._luma:
            weights = torch.tensor(_LUMA)[:, None, None]
            return (image * weights).sum(0, keepdim=True).round().to(torch.uint8)
        return image.expand(self.channels, -1, -1).contiguous()

    def overview(self, longest: int) -> Float[Tensor, "c h w"]:
        """The whole map with a longer side of about this many pixels, every n-th pixel of it; see `pixels`."""
        height, width = self.raster.size
        step = max(1, -(-max(height, width) // longest))
        rows = -(-_OVERVIEW_ROWS // step) * step
        bands: list[Tensor] = []
        for top in range(0, height, rows):
            band = self.raster.read(Window(0, top, width, min(rows, height - top)))
            thinned = Pixels(band.values[:, ::step, ::step], band.holes[::step, ::step])
            bands.append(self._marked(thinned))
        return torch.cat(bands, 1)

    def decoded_to(self, channels: int) -> "MapTiles":
        """The same tiles in grey (1) or colour (3)."""
        other = copy(self)
        other._luma, other.channels = channels < self.channels, channels
        return other

    def name(self, position: int) -> str:
        """Ground size, row and column of a tile."""
        row, column = self._places.cells[position]
        return f"{self._places.metres[position]:g}m/r{row:05}c{column:05}"

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return np.full(len(self), -1)

    def typical_size(self) -> Size:
        """Median height and width."""
        sizes = self.windows[:, 2:].copy()
        sizes[self._uneven] = sizes[self._uneven].min(1, keepdims=True)
        width, height = np.median(sizes, axis=0).astype(int).tolist()
        return Size(height, width)

    def places(self) -> Places:
        """See `Placed`."""
        return self._places


class _Grid:
    """Tiles of a ground size, row by row."""

    def __init__(
        self,
        metres: float,
        windows: Int[NDArray[np.int64], "n 4"],
        cells: Int[NDArray[np.int64], "n 2"],
        uneven: Bool[NDArray[np.bool_], " n"],
    ) -> None:
        """`uneven` says where pixels are not square on the ground."""
        self.metres, self.windows, self.cells, self.uneven = metres, windows, cells, uneven

    def chosen(self, good: Bool[NDArray[np.bool_], " n"]) -> "_Grid":
        """Some of the tiles."""
        return _Grid(self.metres, self.windows[good], self.cells[good], self.uneven[good])


def usual_size(opened: OpenedMap) -> float:
    """The ground size of a tile if none is asked for, in metres, in two digits."""
    height, width = opened.raster.size
    across, down = opened.georeference.metres_per_pixel(np.array([width / 2, height / 2])).tolist()
    metres = min(
        _USUAL_PIXELS * (across * down) ** 0.5, width * across / _ACROSS, height * down / _ACROSS
    )
    return float(f"{metres:.2g}")


def _grid(opened: OpenedMap, metres: float, overlap: float, where: str) -> _Grid:
    """Evenly spaced tiles that cover the map."""
    height, width = opened.raster.size
    middle = np.array([width / 2, height / 2])
    scale = opened.georeference.metres_per_pixel(middle)
    side_x, side_y = metres / scale
    if side_x > width or side_y > height:
        raise DataError(
            f"a tile of {metres:g} m is larger than the map {where}, which shows {width * scale[0]:,.0f} x "
            f"{height * scale[1]:,.0f} m; take smaller --tile-metres"
        )
    if min(side_x, side_y) < _LEAST_PIXELS:
        raise DataError(
            f"a tile of {metres:g} m is only {min(side_x, side_y):.1f} pixels of the map {where} ({scale.max():.3g} m a pixel); take "
            f"larger --tile-metres, such as {float(f'{_USUAL_PIXELS * scale.max():.2g}'):g}"
        )
    columns = 1 + int(np.ceil((width - side_x) / (side_x * (1 - overlap)) - 1e-9))
    rows = 1 + int(np.ceil((height - side_y) / (side_y * (1 - overlap)) - 1e-9))
    if rows * columns > _MOST_TILES:
        raise DataError(
            f"{where} would be cut into {rows * columns:,} tiles of {metres:g} m; take larger --tile-metres or a smaller --tile-overlap"
        )
    # between the middles of the outermost tiles
    x = side_x / 2 + np.linspace(0, width - side_x, columns)
    y = side_y / 2 + np.linspace(0, height - side_y, rows)
    row, column = (index.ravel() for index in np.indices((rows, columns)))
    centers = np.stack([x[column], y[row]], axis=1)
    # the scale of a map may change over it, as in degrees or Web Mercator
    scales = opened.georeference.metres_per_pixel(centers)
    sides = np.maximum(np.round(metres / scales), 1)
    corner = np.clip(
        np.round(centers - sides / 2), 0, np.maximum(np.array([width, height]) - sides, 0)
    )
    sides = np.minimum(sides, np.array([width, height]))
    windows = np.concatenate([corner, sides], axis=1).astype(np.int64)
    uneven = scales.max(1) > _UNEVEN * scales.min(1)
    return _Grid(metres, windows, np.stack([row, column], axis=1), uneven)


def _middles(windows: Int[NDArray[np.int64], "n 4"]) -> Float[NDArray[np.float64], "n 2"]:
    return windows[:, :2] + windows[:, 2:] / 2


def _without_holes(raster: Raster, grids: list[_Grid]) -> tuple[list[_Grid], int]:
    """Tiles that touch no hole, and how many are left out; a tile beside a hole, by less than a cell, may be left out too."""
    if not raster.has_holes:
        return grids, 0
    cell = max(1, int(min(grid.windows[:, 2:].min() for grid in grids)) // _CELLS)
    bad = raster.hole_cells(cell)
    if not bad.any():
        return grids, 0
    free: list[_Grid] = []
    left_out = 0
    for grid in grids:
        good = _free(bad, grid.windows, cell)
        free.append(grid.chosen(good))
        left_out += int((~good).sum())
    return free, left_out


def _free(
    bad: Bool[NDArray[np.bool_], "rows columns"], windows: Int[NDArray[np.int64], "n 4"], cell: int
) -> Bool[NDArray[np.bool_], " n"]:
    """Which windows touch no bad cell. Windows of equal rows are looked at together, so that no sums of the whole map are held."""
    left, top, width, height = windows.T
    rows = np.stack([top // cell, -(-(top + height) // cell)], 1)
    first, last = left // cell, -(-(left + width) // cell)
    good = np.zeros(len(windows), bool)
    bands, band_of = np.unique(rows, axis=0, return_inverse=True)
    order = np.argsort(band_of.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(band_of.ravel(), minlength=len(bands)))
    for (start, stop), members in zip(bands, np.split(order, ends[:-1]), strict=True):
        sums = np.concatenate([[0], bad[start:stop].any(0).cumsum(dtype=np.int32)])
        good[members] = sums[last[members]] == sums[first[members]]
    return good


def _hash(values: list[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]
