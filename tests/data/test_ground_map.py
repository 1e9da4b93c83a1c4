"""Maps of every kind give the same places, and tiles that show what lies there."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import tifffile
from geo import scenes
from PIL import Image

from unmask.contracts import Size
from unmask.data import GroundMap, map_mosaic, map_pictures, map_tiff
from unmask.data.cpu_feed import CpuFeed
from unmask.data.ground_map import GroundReading, MapTiles
from unmask.data.kinds import find_source, kind_of
from unmask.data.loader import Wanted
from unmask.data.map_files import is_map
from unmask.data.map_pictures import placed_pictures
from unmask.data.map_rasters import Window
from unmask.data.place_table import PlaceTable
from unmask.data.place_views import TwoLooks
from unmask.data.views import center_crop
from unmask.errors import DataError, SettingsError
from unmask.geo.crs import crs_named
from unmask.geo.distance import metres_between, metres_per_degree
from unmask.geo.georeference import from_corners
from unmask.geo.overlap import overlapping
from unmask.spec import from_json, to_json

PIXEL = 0.5
"""Metres, about, of a pixel of every map here."""


def degrees_step() -> float:
    return PIXEL / 111_000


def written(kind: str, root: Path) -> Path:
    path = root / "map.tif"
    if kind == "4326":
        scenes.write_geotiff(path, 4326, degrees_step())
    elif kind == "3857":
        scenes.write_geotiff(path, 3857, PIXEL / 0.91, tile=(64, 64))
    elif kind == "utm":
        scenes.write_geotiff(path, scenes.UTM, PIXEL, compression="zlib", rowsperstrip=7)
    elif kind == "turned":
        scenes.write_geotiff(path, scenes.UTM, PIXEL, turn=30)
    elif kind == "world file":
        return scenes.with_world_file(root / "map.png", degrees_step())
    elif kind == "centres":
        return scenes.write_centres(root / "pictures", turn=7)
    else:
        return scenes.write_tiles(root / "tiles", 18)
    return path


KINDS = ["4326", "3857", "utm", "turned", "world file", "tiles", "centres"]


def opened(path: Path, **settings: Any) -> MapTiles:
    return GroundMap(path=str(path), **settings).open()


def whole(tiles: MapTiles) -> Any:
    height, width = tiles.raster.size
    return tiles.pixels(Window(0, 0, width, height)).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_is_where_it_is_in_every_kind_of_map(kind: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path)
    assert find_source(str(path), ground=GroundReading()) == GroundMap(path=str(path))
    assert not isinstance(find_source(str(path)), GroundMap)  # of commands that cut no maps
    tiles = opened(path, tile_metres=(30.0,))
    found = tiles.georeference.to_degrees(scenes.mark_in(whole(tiles)))
    assert float(metres_between(found, np.array(scenes.MARK))) < PIXEL


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_show_their_ground(kind: str, tmp_path: Path) -> None:
    """The middle pixel of a tile has the colour of the ground at its place; sides are metres; neighbours overlap."""
    tiles = opened(written(kind, tmp_path), tile_metres=(30.0, 60.0), tile_overlap=0.5)
    places = tiles.places()
    assert set(places.metres.tolist()) == {30.0, 60.0}
    scale = tiles.georeference.metres_per_pixel(tiles.georeference.to_pixels(places.degrees))
    close = 0
    for row in range(0, len(tiles), 7):
        image = tiles[row].image.numpy()
        assert tiles.windows[row, 2:] * scale[row] == pytest.approx(places.metres[row], abs=1.0)
        assert abs(image.shape[1] - image.shape[2]) <= 1
        middle = image[:, image.shape[1] // 2 - 1 : image.shape[1] // 2 + 1, image.shape[2] // 2 - 1 : image.shape[2] // 2 + 1]  # fmt: skip
        expected = scenes.colours(*places.degrees[row].T)
        close += np.abs(middle.mean((1, 2)) - expected).max() < 12
    assert close >= 0.95 * len(range(0, len(tiles), 7))
    small = np.flatnonzero(places.metres == 30)
    first, second = (small[np.all(places.cells[small] == cell, 1)][0] for cell in ([4, 4], [4, 5]))
    apart = float(metres_between(places.degrees[first], places.degrees[second]))
    assert 12.5 < apart <= 15.5


NORTH = np.array([15.0, 60.0])
"""Longitude and latitude where a degree east is half as long as one north; on the middle meridian of UTM zone 33."""


def ground_of(degrees: Any) -> Any:
    """Colours of places around NORTH, by pyproj; [... 3]."""
    to_metres = pyproj.Transformer.from_crs(4326, 32633, always_xy=True)
    east, north = (
        np.asarray(axis) - start
        for axis, start in zip(
            to_metres.transform(degrees[..., 0], degrees[..., 1]),
            to_metres.transform(*NORTH),
            strict=True,
        )
    )
    waves = [np.sin(east / 5 + 1), np.cos(north / 4), np.sin((east + 2 * north) / 9)]
    return np.clip(np.stack(waves, -1) * 90 + 128, 0, 255)


def northern_map(kind: str, root: Path) -> MapTiles:
    """200 m around NORTH in pixels of 0.5 m, or of 0.5 m down and half of that across."""
    half = np.array([0.0018, 0.0009])
    (west, north), (east, south) = (NORTH + half * sign for sign in ([-1, 1], [1, -1]))
    corners = (north, west, south, east)
    settings: dict[str, Any] = {"corners": corners}
    width, height = 800, 400
    if kind == "UTM":
        to_utm = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform
        (x0, y0), (x1, y1) = to_utm(west, north), to_utm(east, south)
        width, height = round(2 * (x1 - x0)), round(2 * (y0 - y1))
        settings["crs"] = "EPSG:32633"
    crs = crs_named(settings.get("crs", "EPSG:4326"))
    georeference = from_corners(width, height, corners, crs)
    pixels: Any = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    path = root / f"{kind}.png"
    Image.fromarray(ground_of(georeference.to_degrees(pixels)).round().astype(np.uint8)).save(path)
    return opened(path, tile_metres=(40.0,), **settings)


def between(corners: Any) -> Any:
    """An even grid of 32 x 32 points between four corners, clockwise from the top left; [32 32 2]."""
    along = (np.arange(32) + 0.5) / 32
    v, u = np.meshgrid(along, along, indexing="ij")
    return np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], -1) @ np.array(corners)


@pytest.mark.parametrize("kind", ["degrees", "UTM"])
def test_tiles_and_looks_in_the_north_show_their_ground(kind: str, tmp_path: Path) -> None:
    """A map in degrees has twice as many pixels across as down there, and gives the same pictures as one in UTM."""
    tiles = northern_map(kind, tmp_path)
    aspect = float((tiles.windows[:, 2] / tiles.windows[:, 3]).mean())
    assert aspect == pytest.approx(2 if kind == "degrees" else 1, rel=0.02)
    assert tiles.typical_size() == pytest.approx((80, 80), abs=1)
    rows = list(range(0, len(tiles), 7))
    for row in rows:
        image = center_crop(tiles[row].image, Size(32, 32)).numpy().astype(float)
        middle = tiles.places().degrees[row]
        metres = between([(-20, 20), (20, 20), (20, -20), (-20, -20)])
        expected = ground_of(middle + metres / metres_per_degree(middle[1:])[0])
        assert np.abs(image.transpose(1, 2, 0) - expected).mean() < 4  # of a pixel to the side: 6
    feed = CpuFeed(tiles, TwoLooks(relight=False, tilt=0.0), Size(32, 32), 0)
    batch = feed.load(Wanted([(0, row) for row in rows], 0, Size(32, 32)), [])
    assert batch.footprints is not None
    for number, views in enumerate(batch.views):
        for corners, look in zip(batch.footprints[:, number].numpy(), views.numpy(), strict=True):
            degrees = tiles.georeference.to_degrees(corners)
            sides = metres_between(degrees, np.roll(degrees, 1, 0))
            assert sides == pytest.approx(sides.mean(), rel=0.02)  # a square on the ground
            expected = ground_of(tiles.georeference.to_degrees(between(corners)))
            assert np.abs(look.transpose(1, 2, 0) - expected).mean() < 4


def test_windows_of_tiled_files_are_parts_of_the_whole(tmp_path: Path) -> None:
    for number, options in enumerate(
        ({"tile": (48, 32)}, {"rowsperstrip": 11}, {"compression": "zlib", "tile": (64, 64)})
    ):
        path = tmp_path / f"{number}.tif"
        pixels, _ = scenes.write_geotiff(path, scenes.UTM, PIXEL, **options)
        tiles = opened(path, tile_metres=(40.0,))
        for window in (Window(0, 0, 5, 5), Window(33, 17, 190, 101), Window(400, 410, 50, 60)):
            rows, columns = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)  # fmt: skip
            assert np.array_equal(
                tiles.raster.read(window).values, pixels[rows, columns].transpose(2, 0, 1)
            )


def test_only_the_parts_that_a_window_touches_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file of 64 tiles; a part that was read is kept."""
    path = tmp_path / "map.tif"
    scenes.write_geotiff(path, scenes.UTM, PIXEL, tile=(64, 64))
    tiles = opened(path, tile_metres=(40.0,))
    parts: list[tuple[int, int]] = []
    original = map_tiff._Page._decoded

    def decoded(page: Any, row: int, column: int) -> Any:
        parts.append((row, column))
        return original(page, row, column)

    monkeypatch.setattr(map_tiff._Page, "_decoded", decoded)
    tiles.raster.read(Window(70, 140, 20, 20))
    assert parts == [(2, 1)]
    tiles.raster.read(Window(60, 140, 20, 64))
    assert sorted(parts) == [(2, 0), (2, 1), (3, 0), (3, 1)]


def test_separate_bands_and_channels(tmp_path: Path) -> None:
    path = tmp_path / "bands.tif"
    bands = np.random.default_rng(0).integers(1, 4000, (5, 90, 80)).astype(np.uint16)
    keys = (1, 1, 0, 1, 3072, 0, 1, scenes.UTM)
    tags: list[Any] = [
        (33550, 12, 3, (1.0, 1.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 250_000.0, 2_680_000.0, 0.0), True),
        (34735, 3, 8, keys, True),
    ]
    tifffile.imwrite(path, bands, planarconfig="separate", tile=(32, 32), extratags=tags, metadata=None, photometric="minisblack")  # fmt: skip
    tiles = opened(path, tile_metres=(20.0,), channels=(4, 2))
    image = tiles[0].image.numpy()
    assert tiles.values == "float32"
    assert tiles.channels == 2
    assert np.array_equal(image, bands[[3, 1], : image.shape[1], : image.shape[2]])
    with pytest.raises(DataError, match="channel 6 does not exist"):
        opened(path, channels=(6,))


def geo_tags() -> list[Any]:
    """Of a map with pixels of half a metre, which tifffile writes."""
    return [
        (33550, 12, 3, (PIXEL, PIXEL, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 250_000.0, 2_680_000.0, 0.0), True),
        (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, scenes.UTM), True),
    ]


def with_mask(path: Path, pixels: Any, shown: Any) -> None:
    """As GDAL writes it: a second page of the same size with a bit a pixel, of the kind "mask"."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, photometric="rgb", tile=(64, 64), extratags=geo_tags(), metadata=None)
        writer.write(
            shown, tile=(64, 64), bitspersample=1, photometric="mask", subfiletype=4, metadata=None
        )


HOLES = ["no-data", "alpha", "missing tile", "mask", "alpha of six bands"]


@pytest.mark.parametrize("how", HOLES)
def test_holes_are_never_tiles(how: str, tmp_path: Path) -> None:
    if how == "mask" or how == "alpha of six bands":
        path, random = tmp_path / "map.tif", np.random.default_rng(0)
        pixels = random.integers(1, 255, (300, 360, 5 if how.startswith("alpha") else 3), np.uint8)
        shown = np.ones(pixels.shape[:2], bool)
        shown[100:140, 200:260] = False
        if how == "mask":
            with_mask(path, pixels, shown)
        else:
            six = np.dstack([pixels, 255 * shown.astype(np.uint8)])
            tifffile.imwrite(
                path, six, photometric="minisblack", planarconfig="contig", extratags=geo_tags(), metadata=None,
                extrasamples=[0, 0, 0, 0, 2],
            )  # fmt: skip
        tiles = opened(path, tile_metres=(20.0,))
        assert tiles.channels == pixels.shape[2]
        holes = tiles.raster.read(Window(190, 90, 80, 60)).holes
        assert np.array_equal(holes, ~shown[90:150, 190:270])
    elif how == "missing tile":
        root = scenes.write_tiles(tmp_path / "tiles", 19)
        files = sorted(root.rglob("*.png"))
        files[len(files) // 2].unlink()
        tiles = opened(root, tile_metres=(20.0,))
    else:
        path = scenes.with_world_file(tmp_path / "map.png", degrees_step())
        pixels = np.array(Image.open(path))
        pixels[100:140, 200:260] = 0
        alpha = np.full(pixels.shape[:2], 255, np.uint8)
        alpha[100:140, 200:260] = 0
        shown = pixels if how == "no-data" else np.dstack([pixels, alpha])
        Image.fromarray(shown).save(path)
        tiles = opened(path, tile_metres=(20.0,), no_data=0.0 if how == "no-data" else None)
    holes = sum(
        bool(tiles.raster.read(Window(*window)).holes.any()) for window in tiles.windows.tolist()
    )
    assert holes == 0
    assert any("touch a hole" in note for note in tiles.notes)
    everything = int(np.prod(tiles.places().cells.max(0) + 1))
    assert 0.3 * everything < len(tiles) < everything


def test_rows_that_count_from_the_south_and_several_zooms(tmp_path: Path) -> None:
    north = opened(scenes.write_tiles(tmp_path / "xyz", 18), tile_metres=(30.0,))
    south_root = scenes.write_tiles(tmp_path / "tms", 18, lambda y: 2**18 - 1 - y)
    south = opened(south_root, tile_metres=(30.0,), tms=True)
    assert np.array_equal(south.places().degrees, north.places().degrees)
    assert np.array_equal(whole(south), whole(north), equal_nan=True)
    scenes.write_tiles(tmp_path / "xyz", 16)
    both = opened(tmp_path / "xyz", tile_metres=(30.0,))
    assert both.raster.size == north.raster.size
    assert any("16, 18" in note for note in both.notes)
    with pytest.raises(DataError, match="it has 16, 18"):
        opened(tmp_path / "xyz", map_zoom=17)


def test_pmtiles(tmp_path: Path) -> None:
    from pmtiles.tile import Compression, TileType, zxy_to_tileid
    from pmtiles.writer import Writer

    with (tmp_path / "map.pmtiles").open("wb") as file:
        writer = Writer(file)
        for (x, y), picture in sorted(
            scenes.web_tiles(18).items(), key=lambda item: zxy_to_tileid(18, *item[0])
        ):
            encoded = io.BytesIO()
            picture.save(encoded, "PNG")
            writer.write_tile(zxy_to_tileid(18, x, y), encoded.getvalue())
        header = {"tile_type": TileType.PNG, "tile_compression": Compression.NONE}
        writer.finalize(header, {})
    folder = opened(scenes.write_tiles(tmp_path / "xyz", 18), tile_metres=(30.0,))
    archive = opened(tmp_path / "map.pmtiles", tile_metres=(30.0,))
    assert np.array_equal(archive.places().degrees, folder.places().degrees)
    assert np.array_equal(whole(archive), whole(folder), equal_nan=True)
    assert archive.windows.tolist() == folder.windows.tolist()
    (tmp_path / "bad.pmtiles").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="damaged"):
        opened(tmp_path / "bad.pmtiles")


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    path = scenes.with_world_file(tmp_path / "map.png", degrees_step())
    with pytest.raises(DataError, match="larger than the map"):
        opened(path, tile_metres=(500.0,))
    with pytest.raises(DataError, match="only 2"):
        opened(path, tile_metres=(1.0,))
    path.with_suffix(".pgw").unlink()
    with pytest.raises(DataError, match="add --corners"):
        opened(path)
    cornered = opened(path, corners=(24.2613, 120.7191, 24.2591, 120.7215))
    assert cornered.georeference.to_degrees(np.zeros(2)) == pytest.approx([120.7191, 24.2613])
    with pytest.raises(DataError, match="clockwise"):
        opened(path, corners=(1.0, 2.0))


def test_the_fingerprint_follows_the_content_and_the_cut(tmp_path: Path) -> None:
    path = scenes.with_world_file(tmp_path / "map.png", degrees_step())
    first = opened(path, tile_metres=(30.0,))
    again = opened(path, tile_metres=(30.0,))
    assert (first.fingerprint, first.state) == (again.fingerprint, again.state)
    assert opened(path, tile_metres=(31.0,)).fingerprint != first.fingerprint
    pixels = np.array(Image.open(path))
    pixels[5, 5] ^= 1
    Image.fromarray(pixels).save(path)
    assert opened(path, tile_metres=(30.0,)).fingerprint != first.fingerprint


def test_settings_and_kinds(tmp_path: Path) -> None:
    spec = GroundMap(path="a", tile_metres=(30.0,), corners=(1.0, 2.0, 3.0, 4.0), tms=True)
    assert from_json(GroundMap, to_json(spec)) == spec
    with pytest.raises(SettingsError, match="tile_overlap"):
        GroundMap(path="a", tile_overlap=1.0)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    assert kind_of(str(tmp_path / "photos")) == "folder"


@pytest.mark.parametrize(
    ("corners", "said"),
    [
        ((120.7, 24.2, 120.6, 24.3), "is not on the Earth"),
        ((24.2, 120.7, 24.3, 120.8), "it would be mirrored"),
        ((24.3, 179.9, 24.2, -179.9), "it would be mirrored"),
    ],
)
def test_corners_in_another_order_are_refused(
    corners: tuple[float, ...], said: str, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "map.png")
    with pytest.raises(DataError, match=f"map.png cannot be placed: .*{said}"):
        GroundMap(path=str(tmp_path / "map.png"), corners=corners).open()


def test_a_broken_web_tile_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    root = scenes.write_tiles(tmp_path / "tiles", 19)
    files = sorted(root.rglob("*.png"))
    files[0].write_bytes(b"no picture")
    files[len(files) // 2].write_bytes(files[1].read_bytes()[:2000])
    tiles = opened(root, tile_metres=(20.0,))
    reasons: list[str] = []
    for row in range(len(tiles)):
        try:
            tiles[row]
        except DataError as error:
            reasons.append(str(error))
    assert 0 < len(reasons) < len(tiles) / 2
    named = {file for file in files if any(str(file) in reason for reason in reasons)}
    assert named == {files[0], files[len(files) // 2]}
    assert all("cannot be read" in reason for reason in reasons)
    assert tiles.overview(300).shape[0] == 3


def test_holes_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again if a tile changes, also if it keeps its size."""
    root = scenes.write_tiles(tmp_path / "tiles", 19)
    first = opened(root, tile_metres=(20.0,))
    looked: list[int] = []
    original = map_mosaic.decoded

    def decoded(data: bytes) -> Any:
        looked.append(len(data))
        return original(data)

    monkeypatch.setattr(map_mosaic, "decoded", decoded)
    again = opened(root, tile_metres=(20.0,))
    assert np.array_equal(again.windows, first.windows)
    assert not looked
    file = next(iter(sorted(root.rglob("*.png"))))
    changed = bytearray(file.read_bytes())
    changed[-20] ^= 1
    file.write_bytes(changed)
    assert opened(root, tile_metres=(20.0,)).fingerprint != first.fingerprint
    assert looked


def test_folders_of_classes_are_no_web_tiles(tmp_path: Path) -> None:
    """Numbers of classes, of sequences and of frames, which tiles do not have: 1/203/0001.png, and pictures that are no squares."""
    for name, size in [
        ("1/203/0001.png", (8, 8)),
        ("9/7/12.png", (12, 8)),
        ("9/07/12.png", (8, 8)),
    ]:
        root = tmp_path / name.replace("/", "-")
        (root / name).parent.mkdir(parents=True)
        Image.new("RGB", size).save(root / name)
        assert not is_map(root), name
        assert not isinstance(find_source(str(root), ground=GroundReading()), GroundMap)
    real = scenes.write_tiles(tmp_path / "real", 17)
    assert is_map(real)


def test_pictures_with_their_middles(tmp_path: Path) -> None:
    """Other names of the file and of columns, what is wrong with a row, and what makes no map by itself."""
    root = scenes.write_centres(tmp_path / "pictures")
    assert is_map(root)
    plain = opened(root, tile_metres=(30.0,))
    assert any("pictures with their middles in centres.csv" in note for note in plain.notes)
    text = (
        (root / "centres.csv").read_text().replace("file_name,latitude,longitude", "Image,lat,lon")
    )
    (root / "centres.csv").rename(root / "flight.csv").write_text(text)
    assert not is_map(root)  # a folder of photographs may have such a table too
    named = find_source(str(root), "ground-map", ground=GroundReading(tile_metres=(30.0,)))
    assert np.array_equal(named.open("train").places().degrees, plain.places().degrees)  # type: ignore[union-attr]
    lines = text.splitlines()
    for wrong, said in [
        ("000.png,24.2,120.7,0,0", "line 3: latitude 24.2 .* or ground_size 0"),
        ("000.png,,120.7,60,0", "line 3: latitude, longitude or ground_size is missing"),
        ("gone.png,24.2,120.7,60,0", "line 3 names 'gone.png', which is not there"),
        ("000.png,-60,120.7,60,0", "too far for pixels of 0.5 m"),
        ("000.png,north,120.7,60,0", "line 3: lat must be a number"),
    ]:
        (root / "flight.csv").write_text("\n".join([*lines[:2], wrong]) + "\n")
        with pytest.raises(DataError, match=said):
            opened(root)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_with_their_middles_are_turned_as_exif_says(
    orientation: int, tmp_path: Path
) -> None:
    """As drones and phones write them: the map is that of the same pictures stored upright."""
    plain, turned = (scenes.write_centres(tmp_path / name) for name in ("plain", "turned"))
    back = {3: 2, 6: 1, 8: 3}[orientation]
    for root in (plain, turned):
        for file in root.glob("*.png"):
            shown = np.array(Image.open(file))[20:100]  # no square
            if root == plain:
                Image.fromarray(shown).save(file)
                continue
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.fromarray(np.rot90(shown, back)).save(file, exif=exif)
    maps = [opened(root, tile_metres=(20.0,)) for root in (plain, turned)]
    assert np.array_equal(whole(maps[0]), whole(maps[1]), equal_nan=True)


def test_pictures_far_apart_in_the_north_are_placed_to_a_pixel(tmp_path: Path) -> None:
    """Of 40 m, 10 km apart at 60 degrees: a white square is at the middle of each."""
    places = [(60.0, 10.0), (60.06, 10.12), (60.09, 10.0)]
    lines = ["file_name,latitude,longitude,ground_size"]
    for number, (latitude, longitude) in enumerate(places):
        pixels = np.full((40, 40, 3), 50 + number, np.uint8)
        pixels[18:22, 18:22] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{latitude},{longitude},40")
    (tmp_path / "centres.csv").write_text("\n".join(lines) + "\n")
    raster, georeference, _ = placed_pictures(tmp_path / "centres.csv", None)
    for latitude, longitude in places:
        x, y = georeference.to_pixels(np.array([longitude, latitude])).round().astype(int).tolist()
        left, top = max(0, x - 30), max(0, y - 30)
        width, height = (min(60, side - at) for side, at in ((raster.size.width, left), (raster.size.height, top)))  # fmt: skip
        middle = scenes.mark_in(raster.read(Window(left, top, width, height)).values) + np.array(
            [left, top]
        )
        found = georeference.to_degrees(middle)
        assert float(metres_between(found, np.array([longitude, latitude]))) < 1


def test_hidden_pictures_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight pictures of one place, of equal colour each: in every window, pixel by pixel the nearest middle, of equally near ones the first."""
    random = np.random.default_rng(0)
    middles = np.array([[0, 0], [0, 0], [4, 0], [-4, 0], [0, 3], [1, -9], [0.5, 0.5], [60, 0]])
    lines, step = ["file_name,latitude,longitude,ground_size"], np.array([1.0, 1.0]) / 111_320
    for number, (east, north) in enumerate(middles):
        pixels = np.full((40, 40, 3), 10 * number + 10, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        latitude, longitude = north * step[1], east * step[0]  # at the equator
        lines.append(f"{number}.png,{latitude:.12f},{longitude:.12f},40")
    (tmp_path / "centres.csv").write_text("\n".join(lines) + "\n")
    raster, georeference, _ = placed_pictures(tmp_path / "centres.csv", None)
    decodings: list[str] = []
    original = map_pictures._decoded

    def counted(path: Path, no_data: float | None) -> Any:
        decodings.append(path.stem)
        return original(path, no_data)

    monkeypatch.setattr(map_pictures, "_decoded", counted)
    places = georeference.to_pixels(middles * step) - 0.5
    whole_map = raster.read(Window(0, 0, raster.size.width, raster.size.height))
    assert sorted(decodings) == [
        "0",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
    ]  # the second lies under the first
    for row, column in random.integers(0, [raster.size.height, raster.size.width], (400, 2)):
        away = np.hypot(*(places - [column, row]).T)
        reach = np.abs(places - [column, row])
        covers, at_edge = (reach < 19.4).all(1), (np.abs(reach - 20) < 0.6).any()
        distances = np.unique(away.round(3))
        if at_edge or distances[1] - distances[0] < 0.05:  # a matter of rounding
            continue
        expected = 0 if not covers.any() else 10 * int(np.where(covers, away, np.inf).argmin()) + 10
        assert whole_map.values[0, row, column] == expected
    for left, top in random.integers(0, [raster.size.width - 9, raster.size.height - 9], (20, 2)):
        part = raster.read(Window(int(left), int(top), 9, 9)).values
        assert np.array_equal(part, whole_map.values[:, top : top + 9, left : left + 9])


@pytest.mark.parametrize("name", ["a**.png", "[ab].png", "?.png"])
def test_names_of_pictures_are_not_treated_as_patterns(name: str, tmp_path: Path) -> None:
    """Beside the table, or in a folder there; a picture that is not there is named."""
    (tmp_path / "flight").mkdir()
    for other in ("a.png", "ab.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "flight" / other)
    file = tmp_path / "centres.csv"
    file.write_text(f"file_name,latitude,longitude\n{name},24,120\n")
    with pytest.raises(DataError, match=re.escape(f"line 2 names {name!r}, which is not there")):
        PlaceTable(file).picture(0)
    Image.new("RGB", (8, 8)).save(tmp_path / "flight" / name)
    assert PlaceTable(file).picture(0) == tmp_path / "flight" / name


def test_flags_of_other_kinds_of_maps_are_refused(tmp_path: Path) -> None:
    pictures = scenes.write_centres(tmp_path / "pictures")
    tiles = scenes.write_tiles(tmp_path / "tiles", 17)
    for path, wrong, said in [
        (pictures, {"tms": True}, "leave out --tms"),
        (pictures, {"map_zoom": 3}, "leave out --tms and --map-zoom"),
        (tiles, {"no_data": 0.0}, "leave out --no-data"),
    ]:
        with pytest.raises(DataError, match=said):
            opened(path, **wrong)


def test_no_data_and_broken_pictures_of_a_map_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that shows nothing is a hole; a picture that cannot be read is named where tiles touch it."""
    root = scenes.write_centres(tmp_path / "pictures")
    free = len(opened(root, tile_metres=(20.0,)))
    for file in root.glob("*.png"):
        pixels = np.array(Image.open(file))
        pixels[:, :40] = 0
        Image.fromarray(pixels).save(file)
    assert 0 < len(opened(root, tile_metres=(20.0,), no_data=0.0)) < free
    broken, original = (root / "014.png").read_bytes(), map_pictures.decoded

    def decoded(data: bytes) -> Any:
        if data == broken:
            raise DataError("damaged")
        return original(data)

    monkeypatch.setattr(map_pictures, "decoded", decoded)
    reasons = ""
    tiles = opened(root, tile_metres=(30.0,))
    for row in range(len(tiles)):
        try:
            tiles[row]
        except DataError as error:
            reasons += str(error)
    assert "014.png cannot be read (damaged)" in reasons


def test_batches_of_a_map_say_what_looks_show(tmp_path: Path) -> None:
    """In pixels of the map, within the tile; neighbours overlap, tiles far apart do not."""
    tiles = opened(
        scenes.with_world_file(tmp_path / "map.png", degrees_step()), tile_metres=(40.0,)
    )
    feed = CpuFeed(tiles, TwoLooks(), Size(16, 16), 0)
    chosen = [0, 1, len(tiles) - 1]
    batch = feed.load(Wanted([(0, row) for row in chosen], 0, Size(16, 16)), [])
    assert batch.footprints is not None
    for row, looks in zip(chosen, batch.footprints, strict=True):
        left, top, width, height = tiles.windows[row].tolist()
        x, y = looks.unbind(-1)
        assert left <= x.min()
        assert x.max() <= left + width
        assert top <= y.min()
        assert y.max() <= top + height
    whole_tiles = TwoLooks(smallest_side=1.0, shift=0.0, tilt=0.0)
    full = CpuFeed(tiles, whole_tiles, Size(16, 16), 0).load(Wanted([(0, row) for row in chosen], 0, Size(16, 16)), [])  # fmt: skip
    assert full.footprints is not None
    common = overlapping(full.footprints[:, 0], full.footprints[:, 0])
    assert common.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
