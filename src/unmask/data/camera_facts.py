"""What a photograph says of its camera: focal length and height above take-off. Where it was taken (GPS) is read only
by `gps_position`."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.decode import reasons
from unmask.data.picture_formats import open_image
from unmask.errors import DataError, first_line

_EXIF, _FOCAL_35, _GPS = 0x8769, 0xA405, 0x8825
_DIAGONAL_35 = 43.267  # of a picture of 36 x 24, in millimetres
_HEIGHT = re.compile(rb'RelativeAltitude(?:="|>)\s*([+-]?\d+(?:\.\d+)?)')
_XMP_BYTES = 2**18  # of a file; XMP comes before the pixels
_SENSOR = 4 / 3  # proportions of the sensors of nearly all drones; wider pictures are cut from it


class CameraFacts(NamedTuple):
    """Of one photograph; None where it does not say."""

    focal_35: float | None
    """Focal length, as if the sensor had a diagonal of 43.3 mm, in millimetres."""
    height: float | None
    """Above the place of take-off, in metres (XMP RelativeAltitude); not EXIF's altitude, which is above the sea."""


def camera_facts(path: Path) -> CameraFacts:
    """The facts of a file; None for what it does not say, or says as no number. Raises DataError if it is no image."""
    exif, xmp = _read(path, _EXIF)
    said = _HEIGHT.search(xmp)
    return CameraFacts(_positive(exif.get(_FOCAL_35)), said and _positive(said[1]))


def gps_position(path: Path) -> tuple[float, float] | None:
    """Latitude and longitude in EXIF, for those who ask for it; None if it states none. Raises DataError if it is no image."""
    gps, _ = _read(path, _GPS)
    found: list[float] = []
    for sign_tag, tag, negative, most in ((1, 2, "S", 90), (3, 4, "W", 180)):
        try:
            whole, minutes, seconds = (float(part) for part in gps[tag])
            value = whole + minutes / 60 + seconds / 3600
            value = -value if str(gps.get(sign_tag, "")).upper().startswith(negative) else value
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        if not abs(value) <= most:  # also if it is not a number
            return None
        found.append(value)
    return found[0], found[1]


def _read(path: Path, part: int) -> tuple[dict[int, Any], bytes]:
    """A part of EXIF, and the first bytes of a file, which hold XMP."""
    with reasons(path):
        try:
            with path.open("rb") as file:
                start = file.read(_XMP_BYTES)
            with open_image(path) as image:
                return dict(image.getexif().get_ifd(part)), start
        except OSError as error:
            raise DataError(f"{path} cannot be read ({first_line(error)})") from None


def _positive(value: Any) -> float | None:
    """A number above 0; None for everything else, also a fraction by 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < math.inf else None


def width_by_angle(height: float, degrees: float) -> float:
    """Ground width of a picture from straight above, in metres, by the field of view across its width."""
    return 2 * height * math.tan(math.radians(degrees) / 2)


def width_by_focal(height: float, focal_35: float, proportions: float) -> float:
    """Ground width of a picture from straight above, in metres.

    Args:
        height: of the camera above the ground, in metres.
        focal_35: see `CameraFacts`.
        proportions: width of the picture over its height.
    """
    diagonal = height * _DIAGONAL_35 / focal_35
    # a picture narrower than the sensor keeps its shorter side, a wider one its longer side
    longer = diagonal / (1 + _SENSOR**2) ** 0.5 * min(_SENSOR, max(proportions, 1 / proportions))
    return longer * min(1.0, proportions)
