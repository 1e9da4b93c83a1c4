"""Coordinates against pyproj and geographiclib, and round trips."""

import math
from pathlib import Path

import numpy as np
import pyproj
import pytest
from geographiclib.geodesic import Geodesic

from unmask.errors import DataError, ResourceError
from unmask.geo.crs import DEGREES, WEB_MERCATOR, Crs, crs_named
from unmask.geo.distance import local_metres, metres_between
from unmask.geo.georeference import Georeference, from_corners
from unmask.geo.web_tiles import from_tms, georeference_of
from unmask.geo.world_file import read_world_file, world_file

RANDOM = np.random.default_rng(0)
PLACES = np.column_stack([RANDOM.uniform(-179, 179, 200), RANDOM.uniform(-80, 80, 200)])
SYSTEMS = ["EPSG:4326", "EPSG:3857", "EPSG:32651", "EPSG:32733", "EPSG:4269"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_degrees_go_there_and_back_within_a_centimetre(name: str) -> None:
    crs = crs_named(name)
    near = {"EPSG:32651": (123.0, 24.0), "EPSG:32733": (15.0, -30.0)}.get(name)
    places = PLACES if near is None else np.array(near) + RANDOM.uniform(-2, 2, (200, 2))
    again = crs.to_degrees(crs.from_degrees(places))
    assert metres_between(again, places).max() < 0.01


def test_web_mercator_is_that_of_pyproj() -> None:
    there = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
    expected = np.column_stack(there.transform(*PLACES.T))
    assert np.abs(WEB_MERCATOR.from_degrees(PLACES) - expected).max() < 1e-6


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1.0, 60.0])
def test_distances_are_those_of_geographiclib(scale: float) -> None:
    others = np.clip(PLACES + RANDOM.normal(0, scale, PLACES.shape), [-179.9, -89], [179.9, 89])
    for (lon1, lat1), (lon2, lat2) in zip(PLACES[:60], others[:60], strict=True):
        expected = Geodesic.WGS84.Inverse(lat1, lon1, lat2, lon2)["s12"]
        found = float(metres_between(np.array([lon1, lat1]), np.array([lon2, lat2])))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_distances_across_the_date_line_and_of_a_place_to_itself() -> None:
    assert float(metres_between(np.array([179.999, 10.0]), np.array([-179.999, 10.0]))) < 230
    assert float(metres_between(np.array([5.0, 0.0]), np.array([5.0, 0.0]))) == 0
    assert float(metres_between(np.array([5.0, 0.0]), np.array([6.0, 0.0]))) == pytest.approx(
        111_319.49, abs=0.01
    )


def test_local_metres_agree_with_geographiclib() -> None:
    origin = np.array([120.72, 24.26])
    line = Geodesic.WGS84.Direct(24.26, 120.72, 37.0, 800.0)
    east, north = local_metres(np.array([line["lon2"], line["lat2"]]), origin)
    assert math.hypot(east, north) == pytest.approx(800, rel=1e-6)
    assert math.degrees(math.atan2(east, north)) == pytest.approx(37, abs=0.01)


@pytest.mark.parametrize("zoom", [0, 12, 20])
def test_web_tiles_go_there_and_back_within_a_centimetre(zoom: int) -> None:
    # the formula of OpenStreetMap's wiki, written out
    longitude, latitude = 120.7203, 24.2602
    n = 2**zoom
    x = (longitude + 180) / 360 * n
    y = (1 - math.asinh(math.tan(math.radians(latitude))) / math.pi) / 2 * n
    geo = georeference_of(zoom, int(x), int(y), 256)
    pixel = geo.to_pixels(np.array([longitude, latitude]))
    assert pixel == pytest.approx([(x - int(x)) * 256, (y - int(y)) * 256], abs=1e-4)
    back = geo.to_degrees(pixel)
    assert float(metres_between(back, np.array([longitude, latitude]))) < 0.01
    assert from_tms(from_tms(int(y), zoom), zoom) == int(y)


def test_the_size_and_the_direction_of_pixels() -> None:
    turned = math.radians(30)
    affine = (2 * math.cos(turned), 2 * math.sin(turned), 250_000.0)
    affine += (2 * math.sin(turned), -2 * math.cos(turned), 2_680_000.0)
    geo = Georeference(affine, Crs("EPSG:32651"))
    middle = np.array([10.0, 10.0])
    # UTM's scale and convergence here are below 0.1 % and 1.1 degrees
    assert geo.metres_per_pixel(middle) == pytest.approx([2, 2], rel=2e-3)
    assert float(geo.bearing(middle)) == pytest.approx(330, abs=1.2)
    assert geo.to_pixels(geo.to_degrees(middle)) == pytest.approx(middle, abs=1e-4)


def test_corners_of_a_picture() -> None:
    two = from_corners(400, 200, (24.27, 120.70, 24.26, 120.72), DEGREES)
    assert two.to_degrees(np.array([0.0, 0.0])) == pytest.approx([120.70, 24.27])
    assert two.to_degrees(np.array([400.0, 200.0])) == pytest.approx([120.72, 24.26])
    corners = (24.27, 120.70, 24.27, 120.72, 24.26, 120.72, 24.26, 120.70)
    four = from_corners(400, 200, corners, DEGREES)
    assert np.allclose(four.affine, two.affine)
    with pytest.raises(DataError, match="clockwise"):
        from_corners(400, 200, (*corners[:6], 24.5, 120.9), DEGREES)
    with pytest.raises(DataError, match="6 numbers"):
        from_corners(400, 200, corners[:6], DEGREES)


def test_world_files(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    assert world_file(picture) is None
    file = tmp_path / "a.jgw"
    file.write_text("0,5\n0\n0\n-0,5\n250000,25\n2680000,75\n")
    assert world_file(picture) == file
    with pytest.raises(DataError, match="not degrees"):
        read_world_file(file, None)
    geo = read_world_file(file, "32651")
    assert geo.affine == pytest.approx((0.5, 0, 250_000, 0, -0.5, 2_680_001))
    (tmp_path / "a.prj").write_text(pyproj.CRS(32651).to_wkt())
    by_prj = read_world_file(file, None)
    assert np.allclose(by_prj.to_degrees(np.ones((1, 2))), geo.to_degrees(np.ones((1, 2))))
    file.write_text("1\n2\n3\n")
    with pytest.raises(DataError, match="six numbers"):
        read_world_file(file, None)


def test_unknown_systems_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="EPSG:999999"):
        crs_named("999999")
    monkeypatch.setitem(__import__("sys").modules, "pyproj", None)
    assert crs_named("3857").to_degrees(np.zeros((1, 2))).tolist() == [[0, 0]]
    with pytest.raises(ResourceError, match="unmask\\[places\\]"):
        crs_named("EPSG:32652")
