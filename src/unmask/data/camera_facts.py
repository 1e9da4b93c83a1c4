"""What a photograph says of its camera: focal length and height above take-off. Where it was taken (GPS) is never read."""

import re
from pathlib import Path
from typing import NamedTuple

from unmask.data.picture_formats import open_image

_EXIF, _FOCAL_35 = 0x8769, 0xA405
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
    """The facts of a file; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        said = _HEIGHT.search(file.read(_XMP_BYTES))
    with open_image(path) as image:
        focal = image.getexif().get_ifd(_EXIF).get(_FOCAL_35)
    return CameraFacts(
        float(focal) if focal and float(focal) > 0 else None,
        float(said[1]) if said and float(said[1]) > 0 else None,
    )


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
