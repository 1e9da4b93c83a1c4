"""Tiles of web maps in files: a folder ZOOM/X/Y.png, or one PMTiles archive (extra `places`)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unmask.errors import DataError, ResourceError, first_line
from unmask.geo.web_tiles import from_tms, tiles_across
from unmask.spec import digest

PMTILES = ".pmtiles"
"""Ending of an archive."""

_PICTURES = frozenset([".png", ".jpg", ".jpeg", ".webp"])
_VECTOR = "MVT"


class ZoomTiles(NamedTuple):
    """The tiles of a zoom."""

    zoom: int
    tiles: dict[tuple[int, int], Callable[[], bytes]]
    """What reads the file of each tile, by x and y, counted from the north."""
    digest: str
    """A hash that changes with them."""


Tiles = dict[int, Callable[[], ZoomTiles]]
"""What lists the tiles of each zoom."""


def tiles_in_folder(root: Path, tms: bool) -> Tiles:
    """The zooms of a folder ZOOM/X/Y.png; none if it is another folder. With `tms`, y counts from the south."""
    found: Tiles = {}
    for folder in root.iterdir():
        columns = _numbered(folder)
        if columns and any(tile.stem.isdecimal() for tile in _pictures(columns[0])):
            found[int(folder.name)] = partial(_listed, root, int(folder.name), columns, tms)
    return found


def _numbered(folder: Path) -> list[Path]:
    """Subfolders with numbers, of a folder with a number that may be a zoom."""
    if not (folder.name.isdecimal() and len(folder.name) <= 2 and folder.is_dir()):
        return []
    return sorted(one for one in folder.iterdir() if one.name.isdecimal() and one.is_dir())


def _pictures(column: Path) -> list[Path]:
    return sorted(file for file in column.iterdir() if file.suffix.lower() in _PICTURES)


def _listed(root: Path, zoom: int, columns: list[Path], tms: bool) -> ZoomTiles:
    """Raises DataError for a tile that is there twice, or that cannot be."""
    tiles: dict[tuple[int, int], Callable[[], bytes]] = {}
    facts: list[tuple[int, int, int]] = []
    for file in (file for column in columns for file in _pictures(column)):
        if not file.stem.isdecimal():
            continue
        x, y = int(file.parent.name), int(file.stem)
        if not (x < tiles_across(zoom) and y < tiles_across(zoom)):
            raise DataError(
                f"{file}: zoom {zoom} has no such tile; x and y go up to {tiles_across(zoom) - 1:,}"
            )
        key = (x, from_tms(y, zoom) if tms else y)
        if key in tiles:
            raise DataError(f"{root} holds the tile {zoom}/{x}/{y} twice; remove one")
        tiles[key] = file.read_bytes
        status = file.stat()
        facts.append((*key, status.st_size))
    return ZoomTiles(zoom, tiles, digest([zoom, facts]))


def archived_tiles(path: Path) -> Tiles:
    """The zooms of a PMTiles archive.

    Raises:
        ResourceError: without the package pmtiles.
        DataError: if the archive is damaged, or holds vector tiles.
    """
    try:
        from pmtiles.reader import MemorySource, Reader, all_tiles
    except ImportError:
        raise ResourceError(
            "PMTiles need the package pmtiles: pip install 'unmask[places]'"
        ) from None
    source = MemorySource(path.read_bytes())
    try:
        header = Reader(source).header()
        if header["tile_type"].name == _VECTOR:
            raise DataError(
                f"{path} holds vector tiles, which are no pictures; draw them as PNG tiles first"
            )
        by_zoom: dict[int, dict[tuple[int, int], Callable[[], bytes]]] = {}
        for (zoom, x, y), data in all_tiles(source):
            by_zoom.setdefault(zoom, {})[x, y] = partial(_same, data)
    except DataError:
        raise
    except Exception as error:  # the library raises exceptions of many types
        raise DataError(
            f"{path} is damaged, or not a PMTiles archive ({first_line(error)})"
        ) from None
    return {zoom: partial(_held, zoom, tiles) for zoom, tiles in by_zoom.items()}


def _same(data: Any) -> bytes:
    return bytes(data)


def _held(zoom: int, tiles: dict[tuple[int, int], Callable[[], bytes]]) -> ZoomTiles:
    return ZoomTiles(
        zoom, tiles, digest([zoom, [(*key, len(read())) for key, read in sorted(tiles.items())]])
    )
