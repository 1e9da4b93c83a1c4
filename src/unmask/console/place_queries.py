"""A CSV file of pictures whose places are known: `unmask evaluate PLACES --queries FILE`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from unmask.data.ground_map import MapTiles
from unmask.data.place_table import PlaceTable
from unmask.errors import DataError


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
    table = PlaceTable(file, "--queries ")
    used = table.used
    on_map = used["x"] is not None and used["y"] is not None
    if used["file"] is None or not (on_map or (used["latitude"] and used["longitude"])):
        raise DataError(
            f"--queries {file} has the columns {', '.join(table.names)}; it needs file_name, and latitude and longitude, or x and y in "
            "pixels of the map"
        )
    for name in ("latitude", "longitude") if on_map else ("x", "y"):
        used[name] = None
    queries = [_query(table, row, on_map, tiles) for row in range(len(table))]
    words = ", ".join(f"{what} from {name}" for what, name in used.items() if name)
    return PlaceQueries(queries, words)


def _query(table: PlaceTable, row: int, on_map: bool, tiles: MapTiles) -> PlaceQuery:
    place = [
        table.number(row, what) for what in (("x", "y") if on_map else ("longitude", "latitude"))
    ]
    where = f"{table.file}, line {table.line(row)}"
    if None in place:
        raise DataError(f"{where}: the place of the picture is missing")
    point = np.array(place, float)
    size = tiles.raster.size
    least, most = ([0, 0], [size.width, size.height]) if on_map else ([-360, -90], [360, 90])
    if not ((point >= least) & (point <= most)).all():
        what = (
            f"pixels of the map, which has {size.width:,} x {size.height:,}"
            if on_map
            else "degrees"
        )
        raise DataError(f"{where}: {place[0]}, {place[1]} is no place in {what}")
    return PlaceQuery(
        table.picture(row),
        tiles.georeference.to_degrees(point) if on_map else point,
        table.number(row, "heading"),
        table.number(row, "ground size"),
        table.number(row, "height"),
    )
