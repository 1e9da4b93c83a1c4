"""What photographs say of their camera, and files that say it wrongly."""

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from unmask.data.camera_facts import CameraFacts, camera_facts, gps_position, width_by_angle
from unmask.errors import DataError


def photograph(
    path: Path, focal: Any = None, gps: dict[int, Any] | None = None, xmp: bytes = b""
) -> Path:
    image = Image.new("RGB", (8, 6))
    exif = image.getexif()
    if focal is not None:
        exif.get_ifd(0x8769)[0xA405] = focal
    if gps is not None:
        exif.get_ifd(0x8825).update(gps)
    image.save(path, exif=exif, **({"xmp": xmp} if xmp else {}))
    return path


def test_what_is_said(tmp_path: Path) -> None:
    xmp = b'<x drone-dji:RelativeAltitude="+50.5" drone-dji:AbsoluteAltitude="+900"/>'
    assert camera_facts(photograph(tmp_path / "a.jpg", 24, xmp=xmp)) == CameraFacts(24.0, 50.5)
    assert camera_facts(photograph(tmp_path / "b.png")) == CameraFacts(None, None)


@pytest.mark.parametrize("focal", [0, IFDRational(0, 0), "wide"])
def test_a_focal_length_that_is_none_is_not_known(focal: Any, tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 6))
    exif = image.getexif()
    exif.get_ifd(0x8769)[0xA405] = focal
    image.save(tmp_path / "a.tif", exif=exif)
    assert camera_facts(tmp_path / "a.tif").focal_35 is None


@pytest.mark.parametrize("height", [b"-3.0", b"0", b"unknown"])
def test_a_height_that_is_none_is_not_known(height: bytes, tmp_path: Path) -> None:
    xmp = b'<x drone-dji:RelativeAltitude="' + height + b'"/>'
    assert camera_facts(photograph(tmp_path / "a.jpg", xmp=xmp)).height is None


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\xff\xd8\xff\xe1\x00\x10Exif\x00\x00II*\x00"]
)
def test_a_file_that_is_no_image_is_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError):
        camera_facts(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        camera_facts(tmp_path / "gone.jpg")


def test_a_position_in_degrees_minutes_and_seconds(tmp_path: Path) -> None:
    south = {1: "S", 2: (33.0, 51.0, 35.9), 3: "E", 4: (151.0, 12.0, 34.0)}
    found = gps_position(photograph(tmp_path / "a.jpg", gps=south))
    assert found == pytest.approx((-(33 + 51 / 60 + 35.9 / 3600), 151 + 12 / 60 + 34 / 3600))
    assert gps_position(photograph(tmp_path / "b.jpg")) is None
    half = photograph(tmp_path / "c.jpg", gps={1: "N", 2: (33.0, 51.0, 35.9)})
    assert gps_position(half) is None
    nowhere = photograph(tmp_path / "d.jpg", gps=south | {2: (99.0, 0.0, 0.0)})
    assert gps_position(nowhere) is None


def test_the_width_by_an_angle() -> None:
    assert width_by_angle(100, 90) == pytest.approx(200)
    assert width_by_angle(100, 60) == pytest.approx(200 / math.sqrt(3))
