"""Tiles of web maps in files: a folder ZOOM/X/Y.png, or one PMTiles archive (extra `places`)."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.decode import read_header
from unmask.data.map_facts import hash_of_file, hash_of_files
from unmask.errors import DataError, ResourceError, first_line, with_extra
from unmask.geo.web_tiles import from_tms, tiles_across
from unmask.spec import digest

PMTILES = ".pmtiles"
"""Ending of an archive."""

_OPAQUE = frozenset([".jpg", ".jpeg"])
_PICTURES = _OPAQUE | {".png", ".webp"}
_VECTOR, _JPEG = "MVT", "JPEG"
_DEEPEST = 30


class TileFile(NamedTuple):
    """The picture of a tile."""

    read: Callable[[], bytes]
    """Raises OSError if it is no longer there."""
    name: str
    opaque: bool
    """Whether its kind of file has no transparency."""


class ZoomTiles(NamedTuple):
    """The tiles of a zoom."""

    zoom: int
    tiles: dict[tuple[int, int], TileFile]
    """The file of each tile, by x and y, counted from the north."""
    digest: str
    """A hash of their places and contents."""


Tiles = dict[int, Callable[[], ZoomTiles]]
"""What lists the tiles of each zoom."""


def tiles_in_folder(root: Path, tms: bool) -> Tiles:
    """The zooms of a folder ZOOM/X/Y.png; none if it is another folder. With `tms`, y counts from the south."""
    found: Tiles = {}
    for folder in root.iterdir():
        columns = _numbered(folder)
        if columns and _is_tile(next(iter(_pictures(columns[0])), None), int(folder.name)):
            found[int(folder.name)] = partial(_listed, root, int(folder.name), columns, tms)
    return found


def _numbered(folder: Path) -> list[Path]:
    """Subfolders with numbers, of a folder with a number that may be a zoom."""
    if not (_is_number(folder.name, _DEEPEST + 1) and folder.is_dir()):
        return []
    return sorted(one for one in folder.iterdir() if one.name.isdecimal() and one.is_dir())


def _is_number(word: str, below: int) -> bool:
    """Whether it is a number as tiles have it: folders of classes may be called 0203."""
    return word.isdecimal() and str(int(word)) == word and int(word) < below


def _is_tile(file: Path | None, zoom: int) -> bool:
    """Whether a picture may be a tile of a zoom: numbered as one, and a square."""
    across = tiles_across(zoom)
    if file is None or not (_is_number(file.parent.name, across) and _is_number(file.stem, across)):
        return False
    try:
        size = read_header(file).size
    except (OSError, DataError):
        return True  # a damaged tile, which is named later
    return size.height == size.width


def _pictures(column: Path) -> list[Path]:
    return sorted(file for file in column.iterdir() if file.suffix.lower() in _PICTURES)


def _listed(root: Path, zoom: int, columns: list[Path], tms: bool) -> ZoomTiles:
    """Raises DataError for a tile that is there twice, or that cannot be."""
    tiles: dict[tuple[int, int], TileFile] = {}
    files: list[Path] = []
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
        tiles[key] = TileFile(file.read_bytes, str(file), file.suffix.lower() in _OPAQUE)
        files.append(file)
    contents = hash_of_files(files, f"{root.absolute()} {zoom}")
    return ZoomTiles(zoom, tiles, digest([zoom, list(tiles), contents]))


def archived_tiles(path: Path) -> Tiles:
    """The zooms of a PMTiles archive, of which only the directory is read.

    Raises:
        ResourceError: without the package pmtiles.
        DataError: if the archive is damaged, or holds vector tiles.
    """
    try:
        from pmtiles.tile import deserialize_header
    except ImportError:
        raise ResourceError(f"PMTiles need the package pmtiles: {with_extra('places')}") from None
    try:
        header = deserialize_header(_part_of(path, 0, 127))
        if (kind := header["tile_type"].name) == _VECTOR:
            raise DataError(
                f"{path} holds vector tiles, which are no pictures; draw them as PNG tiles first"
            )
        by_zoom: dict[int, dict[tuple[int, int], TileFile]] = {}
        for (zoom, x, y), offset, length in _entries(path, header):
            tile = TileFile(
                partial(_part_of, path, offset, length), f"{path} {zoom}/{x}/{y}", kind == _JPEG
            )
            by_zoom.setdefault(zoom, {})[x, y] = tile
    except DataError:
        raise
    except Exception as error:  # the library raises exceptions of many types
        raise DataError(
            f"{path} is damaged, or not a PMTiles archive ({first_line(error)})"
        ) from None
    return {zoom: partial(_held, path, zoom, tiles) for zoom, tiles in by_zoom.items()}


def _part_of(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _entries(
    path: Path, header: Any, part: tuple[int, int] | None = None
) -> Iterator[tuple[tuple[int, int, int], int, int]]:
    """Zoom, x and y of each tile, and where its picture lies in the file, in the order of the directories."""
    from pmtiles.tile import deserialize_directory, tileid_to_zxy

    offset, length = part or (header["root_offset"], header["root_length"])
    for entry in deserialize_directory(_part_of(path, offset, length)):
        if entry.run_length == 0:
            leaf = header["leaf_directory_offset"] + entry.offset
            yield from _entries(path, header, (leaf, entry.length))
        for number in range(entry.run_length):
            start = header["tile_data_offset"] + entry.offset
            yield tileid_to_zxy(entry.tile_id + number), start, entry.length


def _held(path: Path, zoom: int, tiles: dict[tuple[int, int], TileFile]) -> ZoomTiles:
    return ZoomTiles(zoom, tiles, digest([zoom, hash_of_file(path)]))
