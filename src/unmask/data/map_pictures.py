"""A map of pictures from straight above whose middles are known: a folder with a CSV of file_name, latitude, longitude, ground_size."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.decode import read_header, stored_as
from unmask.data.map_facts import hash_of_files, kept_cells
from unmask.data.map_rasters import Pixels, Recent, Window, decoded, no_cells, no_data_in
from unmask.data.place_table import COLUMNS, PlaceTable
from unmask.errors import DataError, first_line
from unmask.geo.crs import DEGREES
from unmask.geo.distance import metres_per_degree
from unmask.geo.georeference import Georeference
from unmask.spec import digest

_USUAL_NAMES = ("centres.csv", "centers.csv")
_NEEDED = ("file", "latitude", "longitude", "ground size")
_FARTHEST = 300_000  # pixels a side
_BLOCK = 1024  # pixels a side that are searched for holes together
_LYING = (5, 6, 7, 8)  # orientations in EXIF whose stored sides are swapped


class _Placed(NamedTuple):
    """A picture on the map; metres are east and north of the map's upper left corner."""

    path: Path
    middle: Float[NDArray[np.float64], "2"]
    width: float
    """In metres."""
    size: Size
    turn: float
    """The compass direction of its upper edge, in radians."""
    stretch: Float[NDArray[np.float64], "2"]
    """True metres of a metre of the map here, east and north: degrees are narrower towards the poles."""

    @property
    def reach(self) -> Float[NDArray[np.float64], "2"]:
        """How far it reaches from its middle, east and north."""
        sides = np.array([self.width, self.width * self.size.height / self.size.width]) / 2
        cos, sin = abs(math.cos(self.turn)), abs(math.sin(self.turn))
        return np.array([[cos, sin], [sin, cos]]) @ sides / self.stretch


class _Part(NamedTuple):
    """Where a picture lies in a window."""

    place: tuple[slice, slice]
    is_front: Bool[NDArray[np.bool_], "h w"]
    """Pixels of the window at which it is in front of what was painted before."""
    x: Int[NDArray[np.int64], "h w"]
    """Columns of the picture."""
    y: Int[NDArray[np.int64], "h w"]
    away: Float[NDArray[np.float64], "h w"]
    """Metres from its middle."""


def centres_file(folder: Path) -> Path | None:
    """The CSV file with the places of a folder's pictures: centres.csv; None without it."""
    return next((folder / name for name in _USUAL_NAMES if _has_columns(folder / name)), None)


def any_centres_file(folder: Path) -> Path | None:
    """The only CSV file of a folder with these columns, whatever its name."""
    found = [file for file in sorted(folder.glob("*.csv")) if _has_columns(file)]
    return found[0] if len(found) == 1 else None


def _has_columns(file: Path) -> bool:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            names = {name.strip().lower() for name in next(csv.reader(opened), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return all(names & set(COLUMNS[what]) for what in _NEEDED)


def placed_pictures(
    file: Path, no_data: float | None
) -> tuple["PlacedRaster", Georeference, tuple[str, ...]]:
    """The map that the pictures of a CSV file make together, at the finest of their scales, in degrees.

    Pixels whose channels all hold the no-data value show nothing.

    A column heading, if there is one, is the compass direction of a picture's upper edge; otherwise that is north.

    Raises:
        DataError: with the line that is wrong.
    """
    table = PlaceTable(file)
    degrees: list[list[float]] = []
    facts: list[tuple[Path, float, Size, float]] = []
    for row in range(len(table)):
        latitude, longitude, width = (
            table.number(row, what) for what in ("latitude", "longitude", "ground size")
        )
        where = f"{file}, line {table.line(row)}"
        if latitude is None or longitude is None or width is None:
            raise DataError(f"{where}: latitude, longitude or ground_size is missing")
        if abs(latitude) > 85 or abs(longitude) > 180 or width <= 0:
            raise DataError(
                f"{where}: latitude {latitude:g} (up to 85), longitude {longitude:g} (up to 180) or ground_size {width:g} (metres, "
                "above 0) cannot be"
            )
        path = table.picture(row)
        degrees.append([longitude, latitude])
        turn = math.radians(table.number(row, "heading") or 0.0)
        facts.append((path, width, _size_of(path, where), turn))
    # metres are those of the map itself, which has one scale across: the plane of its middle latitude
    origin = np.array(degrees[0])
    apart = np.array(degrees) - origin
    apart[:, 0] = (apart[:, 0] + 180) % 360 - 180
    middle = origin[1] + (apart[:, 1].min() + apart[:, 1].max()) / 2
    per_degree = metres_per_degree(np.array(middle))
    places = apart * per_degree
    placed = [
        _Placed(p, m, w, s, t, metres_per_degree(np.array(d[1])) / per_degree)
        for (p, w, s, t), m, d in zip(facts, places, degrees, strict=True)
    ]
    west, south = np.min([one.middle - one.reach for one in placed], 0)
    east, north = np.max([one.middle + one.reach for one in placed], 0)
    step = min(one.width / one.size.width for one in placed)
    size = Size(max(1, math.ceil((north - south) / step)), max(1, math.ceil((east - west) / step)))
    if max(size) > _FARTHEST:
        raise DataError(
            f"the pictures of {file} are spread over {(east - west) / 1000:,.0f} x {(north - south) / 1000:,.0f} km, too far for "
            f"pixels of {step:.2g} m; keep the pictures of one region in a folder"
        )
    moved = [one._replace(middle=one.middle - np.array([west, north])) for one in placed]
    across, down = per_degree.tolist()
    left, top = origin[0] + west / across, origin[1] + north / down
    georeference = Georeference((step / across, 0.0, left, 0.0, -step / down, top), DEGREES)
    note = f"{len(placed):,} pictures with their middles in {file.name} are the map"
    return PlacedRaster(moved, step, size, file, no_data), georeference, (note,)


def _size_of(path: Path, where: str) -> Size:
    """As it is shown: EXIF may turn the stored picture."""
    try:
        read_header(path)
        (height, width), orientation = stored_as(path)
        return Size(width, height) if orientation in _LYING else Size(height, width)
    except (OSError, DataError) as error:
        raise DataError(f"{where}: {path.name} cannot be read ({first_line(error)})") from None


class PlacedRaster:
    """Pictures side by side or over one another, in colour; where several show a place, the one whose middle is nearest does."""

    def __init__(
        self, pictures: list[_Placed], step: float, size: Size, file: Path, no_data: float | None
    ) -> None:
        """`step` is a pixel in metres."""
        self._no_data = no_data
        self._pictures, self._step, self.size, self._file = pictures, step, size, file
        self.channels, self.dtype, self.has_holes = 3, np.dtype(np.uint8), True
        reaches = np.array([one.reach for one in pictures])
        middles = np.array([one.middle for one in pictures]) * [1, -1]
        self._boxes = np.hstack([middles - reaches, middles + reaches]) / step  # in pixels
        self._recent: Recent = Recent()

    def read(self, window: Window) -> Pixels:
        """See `Raster`; pictures that others hide in the window are not decoded."""
        shape = (window.height, window.width)
        values = np.zeros((self.channels, *shape), np.uint8)
        nearest, owner = np.full(shape, np.inf), np.full(shape, len(self._pictures))
        broken = ""
        for number in self._meeting(window):
            part = self._frontmost(number, window, nearest, owner)
            if not part.is_front.any():
                continue
            path = self._pictures[number].path
            try:
                picture = self._recent.get(number, lambda path=path: _decoded(path, self._no_data))
            except DataError as error:
                broken = broken or str(error)
                continue
            assert picture is not None
            shown = part.is_front
            shown[shown] = picture[3, part.y[shown], part.x[shown]] > 0
            values[:, *part.place][:, shown] = picture[:3, part.y[shown], part.x[shown]]
            nearest[part.place][shown], owner[part.place][shown] = part.away[shown], number
        return Pixels(values, np.isinf(nearest), broken)

    def _meeting(self, window: Window) -> list[int]:
        """The pictures that meet a window, those first whose middle is nearest to that of the window: they hide others."""
        right, bottom = window.left + window.width, window.top + window.height
        boxes = self._boxes
        meets = (boxes[:, 0] < right) & (boxes[:, 2] > window.left)
        meets &= (boxes[:, 1] < bottom) & (boxes[:, 3] > window.top)
        numbers = np.flatnonzero(meets)
        middles = (boxes[numbers, :2] + boxes[numbers, 2:]) / 2
        away = middles - [(window.left + right) / 2, (window.top + bottom) / 2]
        return numbers[np.hypot(*away.T).argsort(kind="stable")].tolist()

    def _frontmost(
        self,
        number: int,
        window: Window,
        nearest: Float[NDArray[np.float64], "y x"],
        owner: Int[NDArray[np.int64], "y x"],
    ) -> _Part:
        """Where a picture lies in a window, and where no nearer middle was painted; of equally near ones the first of the file counts."""
        one, box = self._pictures[number], self._boxes[number]
        first, last = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
        left, top = np.maximum(first - [window.left, window.top], 0).tolist()
        right, bottom = (last - [window.left, window.top]).tolist()
        place = (slice(top, bottom), slice(left, right))
        rows, columns = np.indices(nearest[place].shape) + 0.5
        east = ((columns + left + window.left) * self._step - one.middle[0]) * one.stretch[0]
        south = ((rows + top + window.top) * self._step + one.middle[1]) * one.stretch[1]
        cos, sin = math.cos(one.turn), math.sin(one.turn)
        scale = one.size.width / one.width
        x = np.floor((east * cos + south * sin) * scale + one.size.width / 2).astype(int)
        y = np.floor((south * cos - east * sin) * scale + one.size.height / 2).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < one.size.width) & (y < one.size.height)
        away = np.hypot(east, south)
        before = (away == nearest[place]) & (number < owner[place])
        return _Part(place, inside & ((away < nearest[place]) | before), x, y, away)

    def hole_cells(self, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
        """See `Raster`; looked for once, and kept until the files change."""
        key = [self.fingerprint(), cell, self._no_data]
        return kept_cells(key, self.size, cell, lambda: self._hole_cells(cell))

    def _hole_cells(self, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
        """Looked for in squares, which few pictures touch; where one cannot be read, its tiles say so, so it is no hole here."""
        bad, side = no_cells(self.size, cell), -(-_BLOCK // cell) * cell
        height, width = self.size
        for top in range(0, height, side):
            for left in range(0, width, side):
                window = Window(left, top, min(side, width - left), min(side, height - top))
                pixels = self.read(window)
                if not pixels.broken:
                    y, x = np.nonzero(pixels.holes)
                    bad[(y + top) // cell, (x + left) // cell] = True
        return bad

    def fingerprint(self) -> str:
        """See `Raster`."""
        files = [self._file, *(one.path for one in self._pictures)]
        return digest(["placed", hash_of_files(files, str(self._file.absolute()))])


def _decoded(path: Path, no_data: float | None) -> Shaped[NDArray[np.uint8], "4 h w"]:
    """A picture in colour, with alpha as its last channel, 0 also where it holds no data; raises DataError with its name."""
    try:
        pixels, transparent = decoded(path.read_bytes())
    except (OSError, DataError) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)})") from None
    shown = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
    transparent = transparent | no_data_in(pixels, no_data)
    return np.concatenate([shown, 255 * ~transparent[None]]).astype(np.uint8)
