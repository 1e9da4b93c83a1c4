"""Opening a map: its pixels, and where they lie, from the kinds of files that hold maps."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from unmask.contracts import Size
from unmask.data.band_files import BAND_ENDINGS
from unmask.data.decode import read_header
from unmask.data.geotiff import geo_tags
from unmask.data.map_mosaic import MosaicRaster
from unmask.data.map_pictures import any_centres_file, centres_file, placed_pictures
from unmask.data.map_rasters import PictureRaster, Raster
from unmask.data.map_tiff import TiffRaster
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.data.place_table import PlaceTable
from unmask.data.web_tile_files import (
    PMTILES,
    TileFile,
    Tiles,
    ZoomTiles,
    archived_tiles,
    tiles_in_folder,
)
from unmask.errors import DataError, ResourceError, first_line
from unmask.geo.crs import DEGREES, crs_named
from unmask.geo.georeference import Georeference, from_corners
from unmask.geo.web_tiles import georeference_of
from unmask.geo.world_file import read_world_file, world_file

_FARTHEST = 4096  # tiles a side of a mosaic; more is a stray tile far away


class OpenedMap(NamedTuple):
    """A map that is open."""

    raster: Raster
    georeference: Georeference
    notes: tuple[str, ...] = ()
    """What was decided, a sentence each."""


def is_map(path: Path) -> bool:
    """Whether a path is a map by itself: a picture that says where it lies, web tiles, or pictures with a CSV of their places."""
    if path.is_dir():
        return centres_file(path) is not None or bool(tiles_in_folder(path, tms=False))
    if not path.is_file():
        return False
    if path.suffix.lower() == PMTILES:
        return True
    if path.suffix.lower() not in IMAGE_ENDINGS:
        return False
    if world_file(path) is not None:
        return True
    try:
        tags = geo_tags(path)
    except (DataError, ResourceError):
        return False
    return tags is not None and tags.transform is not None and tags.epsg is not None


def open_map(
    path: Path,
    *,
    crs: str | None,
    corners: tuple[float, ...],
    tms: bool,
    zoom: int | None,
    no_data: float | None,
) -> OpenedMap:
    """Open a map; see `GroundMap` for the arguments.

    Raises:
        DataError: if it is damaged, or nothing says where it lies.
        ResourceError: if a package is missing.
    """
    centres = centres_of(path)
    if centres is not None:
        if corners or crs:
            raise DataError(
                f"{centres} says where the pictures of {path} lie; leave out --corners and --crs"
            )
        if tms or zoom is not None:
            raise DataError(
                f"{path} is a map of pictures by {centres.name}, not of web tiles; leave out --tms and --map-zoom"
            )
        return OpenedMap(*placed_pictures(centres, no_data))
    if path.is_dir() or path.suffix.lower() == PMTILES:
        if corners or crs:
            raise DataError(
                f"{path} holds web tiles, which say where they lie; leave out --corners and --crs"
            )
        if no_data is not None:
            raise DataError(
                f"{path} holds web tiles, which show nothing where they are transparent or missing; leave out --no-data"
            )
        tiles = archived_tiles(path) if path.is_file() else tiles_in_folder(path, tms)
        files, notes = _of_zoom(path, tiles, zoom)
        return _mosaic(path, files, notes)
    if not path.is_file():
        raise DataError(f"the map {path} does not exist")
    is_tiff = path.suffix.lower() in BAND_ENDINGS - {".npy"}
    raster = TiffRaster(path, no_data) if is_tiff else PictureRaster(path, no_data)
    georeference = _georeference(path, raster.size, crs, corners)
    try:
        georeference.check(raster.size.width, raster.size.height)
    except DataError as error:
        raise DataError(f"the map {path} cannot be placed: {error}") from None
    return OpenedMap(raster, georeference)


def pictures_of_map(path: Path) -> list[Path]:
    """The photographs that a map is made of: those of its CSV file, none of other kinds of maps, or if the map is gone."""
    centres = centres_of(path)
    if centres is None:
        return []
    table, pictures = PlaceTable(centres), list[Path]()
    for row in range(len(table)):
        with suppress(DataError):  # gone since
            pictures.append(table.picture(row))
    return pictures


def centres_of(path: Path) -> Path | None:
    """The CSV file with the places of the pictures of a folder that is a map of such."""
    return centres_file(path) or any_centres_file(path) if path.is_dir() else None


def _georeference(
    path: Path, size: Size, crs: str | None, corners: tuple[float, ...]
) -> Georeference:
    """As the user says, as a GeoTIFF says of itself, or as a world file says."""
    if corners:
        return from_corners(size.width, size.height, corners, crs_named(crs) if crs else DEGREES)
    tags = geo_tags(path)
    if tags is not None and tags.transform is not None:
        name = crs or (f"EPSG:{tags.epsg}" if tags.epsg else None)
        if name is None:
            raise DataError(
                f"{path} does not name its coordinates by an EPSG number; add --crs, such as --crs EPSG:32651"
            )
        a, b, c, d, e, f = tags.transform.ravel().tolist()
        return Georeference((a, b, c, d, e, f), crs_named(name))
    beside = world_file(path)
    if beside is not None:
        return read_world_file(beside, crs)
    raise DataError(
        f"{path} does not say where it lies: it is no GeoTIFF, and has no world file beside it; add --corners with latitude "
        "and longitude of its top left and bottom right corner, such as --corners 24.263,120.718,24.257,120.722"
    )


def _mosaic(path: Path, files: ZoomTiles, notes: tuple[str, ...]) -> OpenedMap:
    """The tiles of a zoom side by side."""
    left, top = (min(key[axis] for key in files.tiles) for axis in (0, 1))
    across, down = (
        max(key[axis] for key in files.tiles) - first + 1 for axis, first in ((0, left), (1, top))
    )
    if max(across, down) > _FARTHEST:
        raise DataError(
            f"the tiles of {path} at zoom {files.zoom} are spread over {across:,} x {down:,} places; keep the tiles of one region "
            "in a folder"
        )
    first = _readable(files)
    try:
        header = read_header(BytesIO(first.read()))
    except (OSError, DataError) as error:
        raise DataError(
            f"the web tile {first.name} cannot be read ({first_line(error)}); repair or remove it"
        ) from None
    if header.size.height != header.size.width:
        raise DataError(
            f"the web tile {first.name} has {header.size} pixels, and web tiles are squares"
        )
    moved = {(y - top, x - left): read for (x, y), read in files.tiles.items()}
    side = header.size.width
    raster = MosaicRaster(moved, side, files.digest)
    return OpenedMap(raster, georeference_of(files.zoom, left, top, side), notes)


def _readable(files: ZoomTiles) -> TileFile:
    """The first tile with a header; the first of all if none has one. Later ones that cannot be read are unusable, and listed."""
    for tile in files.tiles.values():
        with suppress(OSError, DataError):
            read_header(BytesIO(tile.read()))
            return tile
    return next(iter(files.tiles.values()))


def _of_zoom(path: Path, tiles: Tiles, wanted: int | None) -> tuple[ZoomTiles, tuple[str, ...]]:
    """The tiles of the zoom that is used, the finest if none is asked for, and what to say.

    Raises:
        DataError: if the wanted one is not there.
    """
    known = ", ".join(map(str, sorted(tiles)))
    if not tiles:
        raise DataError(
            f"{path} holds no web tiles, which are files ZOOM/X/Y.png of a folder, or a PMTiles archive; pictures with known middles "
            "need one CSV file with file_name, latitude, longitude and ground_size"
        )
    if wanted is not None and wanted not in tiles:
        raise DataError(f"{path} has no tiles of zoom {wanted}; it has {known}")
    zoom = max(tiles) if wanted is None else wanted
    if len(tiles) == 1 or wanted is not None:
        return tiles[zoom](), ()
    return tiles[zoom](), (
        f"tiles of several zooms ({known}); zoom {zoom} is used, --map-zoom chooses another",
    )
