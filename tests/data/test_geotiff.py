"""Coordinates of GeoTIFFs: tags are copied unchanged, and places agree with what the standard says by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unmask.contracts import Size
from unmask.data.geotiff import GeoTags, Tag, geo_tags, write_map
from unmask.data.map_values import read_values, size_of

GEO = (33550, 33922, 34264, 34735, 34736, 34737)
COLORS = [(255, 0, 0), (0, 128, 7)]


def tags_of(file: Path, codes: tuple[int, ...] = GEO) -> dict[int, tuple[int, int, Any]]:
    """Type, number of values and values of the tags of a file's first page."""
    with tifffile.TiffFile(file) as tiff:
        tags = tiff.pages[0].tags
        return {
            code: (tags[code].dtype, tags[code].count, tags[code].value)
            for code in codes
            if code in tags
        }


@pytest.mark.parametrize(
    ("name", "count"),
    [("landsat-peru/1985.tif", 2), ("landsat7-olinda/L7_ETMs.tif", 5), ("rgba16/RGBA.uint16.tif", 4)],
)  # fmt: skip
def test_a_map_has_the_tags_of_its_picture(
    real_set: Callable[..., Path], tmp_path: Path, name: str, count: int
) -> None:
    file = real_set("multichannel") / name
    geo = geo_tags(file)
    assert geo is not None
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2
    values[0, 0] = 255
    write_map(tmp_path / "map.tif", values, geo, 255, COLORS)
    assert tags_of(tmp_path / "map.tif") == tags_of(file)
    assert len(tags_of(file)) == count - (name.startswith("landsat7"))
    with Image.open(tmp_path / "map.tif") as image:  # another reader
        assert image.mode == "P"
        assert np.array_equal(np.array(image), values)
        assert image.getpalette()[:6] == [255, 0, 0, 0, 128, 7]  # pyright: ignore[reportOptionalSubscript]
        assert image.tag_v2[42113] == "255"
    classes = read_values(tmp_path / "map.tif", coloured=False)  # as annotations
    assert classes[0, 0] == -1
    assert np.array_equal(classes[1:], values[1:])
    assert size_of(tmp_path / "map.tif") == Size(3, 4)


def test_maps_of_many_classes_have_16_bits(tmp_path: Path) -> None:
    geo = GeoTags((Tag(33922, 12, 6, (0.0,) * 6),))
    values = np.array([[300, 65535]], np.uint16)
    write_map(tmp_path / "map.tif", values, geo, 65535, [(1, 2, 3)] * 400)
    assert read_values(tmp_path / "map.tif", coloured=False).tolist() == [[300, -1]]


def test_other_files_have_no_coordinates(tmp_path: Path) -> None:
    picture = np.zeros((3, 4), np.uint8)
    tifffile.imwrite(tmp_path / "plain.tif", picture)
    lying = [(33922, 12, 6, (0.0,) * 6, True), (274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "lying.tif", picture, extratags=lying)
    np.save(tmp_path / "a.npy", picture)
    for name in ("plain.tif", "lying.tif", "a.npy", "missing.png"):
        assert geo_tags(tmp_path / name) is None


def directory(**keys: int) -> Tag:
    """The directory of keys, with these numbers as in GTRasterTypeGeoKey=1."""
    numbers = {"raster": 1025, "geodetic": 2048, "projected": 3072}
    entries = [part for name, value in keys.items() for part in (numbers[name], 0, 1, value)]
    return Tag(34735, 3, 4 + len(entries), (1, 1, 0, len(keys), *entries))


SCALE = Tag(33550, 12, 3, (30.0, 20.0, 0.0))
TIES = Tag(33922, 12, 6, (2.0, 1.0, 0.0, 1000.0, 5000.0, 0.0))


def test_coordinates_of_corners_by_hand() -> None:
    """Pixel 2, 1 lies at 1000, 5000: its corner if pixels are areas, its middle if they are points."""
    areas = GeoTags((SCALE, TIES, directory(raster=1, projected=32622)))
    affine, epsg = areas.transform, areas.epsg
    assert affine is not None
    assert (affine @ [2, 1, 1]).tolist() == [1000, 5000]
    assert (affine @ [3, 3, 1]).tolist() == [1030, 4960]
    assert epsg == 32622
    points = GeoTags((SCALE, TIES, directory(raster=2, geodetic=4326)))
    assert points.transform is not None
    assert (points.transform @ [2.5, 1.5, 1]).tolist() == [1000, 5000]
    assert points.epsg == 4326
    matrix = Tag(34264, 12, 16, (0, -2, 0, 7, 3, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1))
    turned = GeoTags((matrix, directory(projected=32767)))
    assert turned.transform is not None
    assert (turned.transform @ [5, 1, 1]).tolist() == [5, 24]
    assert turned.epsg is None
    assert GeoTags((TIES,)).transform is None


def test_a_real_scene_lies_where_it_should(real_set: Callable[..., Path]) -> None:
    """Olinda in Brazil, UTM zone 25 south: 28.5 m a pixel, from its upper left corner."""
    geo = geo_tags(real_set("multichannel") / "landsat7-olinda" / "L7_ETMs.tif")
    assert geo is not None
    assert geo.epsg == 31985
    assert geo.transform is not None
    corners = geo.transform @ np.array([[0, 349], [0, 352], [1, 1]])
    expected = [[288776.25, 288776.25 + 28.5 * 349], [9120760.75, 9120760.75 - 28.5 * 352]]
    np.testing.assert_allclose(corners, expected, atol=1e-3)
