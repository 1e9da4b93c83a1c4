"""Maps of every kind give the same places, and tiles that show what lies there."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from geo import scenes
from PIL import Image

from unmask.data import GroundMap
from unmask.data.ground_map import GroundReading, MapTiles
from unmask.data.kinds import find_source, kind_of
from unmask.data.map_rasters import Window
from unmask.errors import DataError, SettingsError
from unmask.geo.distance import metres_between
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
    else:
        return scenes.write_tiles(root / "tiles", 18)
    return path


KINDS = ["4326", "3857", "utm", "turned", "world file", "tiles"]


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
        sides = image.shape[2] * scale[row, 0], image.shape[1] * scale[row, 1]
        assert sides == pytest.approx((places.metres[row],) * 2, abs=1.0)
        middle = image[:, image.shape[1] // 2 - 1 : image.shape[1] // 2 + 1, image.shape[2] // 2 - 1 : image.shape[2] // 2 + 1]  # fmt: skip
        expected = scenes.colours(*places.degrees[row].T)
        close += np.abs(middle.mean((1, 2)) - expected).max() < 12
    assert close >= 0.95 * len(range(0, len(tiles), 7))
    small = np.flatnonzero(places.metres == 30)
    first, second = (small[np.all(places.cells[small] == cell, 1)][0] for cell in ([1, 1], [1, 2]))
    apart = float(metres_between(places.degrees[first], places.degrees[second]))
    assert 12.5 < apart <= 15.5


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


@pytest.mark.parametrize("how", ["no-data", "alpha", "missing tile"])
def test_holes_are_never_tiles(how: str, tmp_path: Path) -> None:
    if how == "missing tile":
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
        bool(tiles.raster.read(Window(*window)).holes.any()) for window in tiles._windows.tolist()
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
    assert np.array_equal(whole(south), whole(north))
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
    assert np.array_equal(whole(archive), whole(folder))
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
