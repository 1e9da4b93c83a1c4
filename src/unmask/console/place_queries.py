"""A CSV file of pictures whose places are known: `unmask evaluate PLACES --queries FILE`."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from unmask.data.ground_map import MapTiles
from unmask.errors import DataError

_FILE = ("file_name", "file", "filename", "image", "name")
_X, _Y = ("x",), ("y",)
_LATITUDE = ("latitude", "lat")
_LONGITUDE = ("longitude", "lon", "lng", "long")
_HEADING = ("heading", "heading_deg")
_WIDTH = ("ground_size", "width_m")
_HEIGHT = ("height", "height_m")


class PlaceQuery(NamedTuple):
    """A picture whose place is known."""

    path: Path
    degrees: Float[NDArray[np.float64], "2"]
    """Longitude and latitude of its middle."""
    heading: float | None
    """Compass direction of its upper edge, in degrees."""
    width: float | None
    """Ground width in metres."""
    height: float | None
    """Of the camera, in metres."""


class PlaceQueries(NamedTuple):
    """All of a file."""

    rows: list[PlaceQuery]
    words: str
    """Which columns are used."""


def read_queries(file: Path, tiles: MapTiles) -> PlaceQueries:
    """Read the file; places are columns x and y (pixels of the map), or latitude and longitude.

    Raises:
        DataError: with the column or the row that is missing or wrong.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--queries {file} cannot be read as CSV ({error})") from None
    if not rows:
        raise DataError(f"--queries {file} has no rows")
    columns = {name.strip().lower(): name for name in rows[0] if name}
    used = {
        "file": _column(columns, _FILE),
        "x": _column(columns, _X),
        "y": _column(columns, _Y),
        "latitude": _column(columns, _LATITUDE),
        "longitude": _column(columns, _LONGITUDE),
        "heading": _column(columns, _HEADING),
        "ground size": _column(columns, _WIDTH),
        "height": _column(columns, _HEIGHT),
    }
    on_map = used["x"] is not None and used["y"] is not None
    if used["file"] is None or not (on_map or (used["latitude"] and used["longitude"])):
        raise DataError(
            f"--queries {file} has the columns {', '.join(columns)}; it needs file_name, and latitude and longitude, or x and y in "
            "pixels of the map"
        )
    for name in ("latitude", "longitude") if on_map else ("x", "y"):
        used[name] = None
    queries = [_query(file, number, row, used, on_map, tiles) for number, row in enumerate(rows, 2)]
    words = ", ".join(f"{what} from {name}" for what, name in used.items() if name)
    return PlaceQueries(queries, words)


def _column(columns: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((columns[name] for name in names if name in columns), None)


def _query(
    file: Path,
    number: int,
    row: dict[str, str],
    used: dict[str, str | None],
    on_map: bool,
    tiles: MapTiles,
) -> PlaceQuery:
    def value(what: str) -> float | None:
        name = used[what]
        text = (row.get(name) or "").strip() if name else ""
        if not text:
            return None
        try:
            number_given = float(text)
        except ValueError:
            number_given = math.nan
        if not math.isfinite(number_given):
            raise DataError(f"{file}, line {number}: {name} must be a number, got {text!r}")
        return number_given

    place = [value(what) for what in (("x", "y") if on_map else ("longitude", "latitude"))]
    if None in place:
        raise DataError(f"{file}, line {number}: the place of the picture is missing")
    point = np.array(place, float)
    size = tiles.raster.size
    least, most = ([0, 0], [size.width, size.height]) if on_map else ([-360, -90], [360, 90])
    if not ((point >= least) & (point <= most)).all():  # also if it is not a number
        what = (
            f"pixels of the map, which has {size.width:,} x {size.height:,}"
            if on_map
            else "degrees"
        )
        raise DataError(f"{file}, line {number}: {place[0]}, {place[1]} is no place in {what}")
    name = (row.get(used["file"] or "") or "").strip()
    return PlaceQuery(
        _found(file.parent, name, number),
        tiles.georeference.to_degrees(point) if on_map else point,
        value("heading"),
        value("ground size"),
        value("height"),
    )


def _found(root: Path, name: str, number: int) -> Path:
    """The picture, beside the file or in one of the folders there."""
    if name and (root / name).is_file():
        return root / name
    others = sorted(root.glob(f"*/{name}")) if name and "/" not in name else []
    if len(others) != 1:
        where = "is in several folders" if others else "is not there"
        raise DataError(f"line {number} names {name!r}, which {where} in {root}")
    return others[0]
