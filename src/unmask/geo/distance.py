"""Distances on the ellipsoid of WGS 84.

Vincenty, "Direct and inverse solutions of geodesics on the ellipsoid with application of nested equations" (Survey Review,
1975): the inverse solution, exact to less than a millimetre except between points that are nearly opposite on the Earth.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from unmask.geo.crs import EQUATOR_RADIUS

FLATTENING = 1 / 298.257223563
_POLE_RADIUS = EQUATOR_RADIUS * (1 - FLATTENING)
_ECCENTRICITY = FLATTENING * (2 - FLATTENING)  # squared
_MOST_STEPS = 50

Degrees = Float[NDArray[np.float64], "... 2"]
"""Longitude and latitude, in degrees."""


def metres_between(first: Degrees, second: Degrees) -> Float[NDArray[np.float64], "..."]:
    """The length of the shortest way between points; the arrays are broadcast."""
    first, second = np.broadcast_arrays(np.radians(first), np.radians(second))
    reduced = [np.arctan((1 - FLATTENING) * np.tan(points[..., 1])) for points in (first, second)]
    (sin1, sin2), (cos1, cos2) = np.sin(reduced), np.cos(reduced)
    apart = second[..., 0] - first[..., 0]
    apart = (apart + np.pi) % (2 * np.pi) - np.pi
    longitude = apart
    middle = arc = sin_arc = cos_arc = cos2_azimuth = apart
    for _ in range(_MOST_STEPS):
        across = cos2 * np.sin(longitude)
        along = cos1 * sin2 - sin1 * cos2 * np.cos(longitude)
        sin_arc = np.hypot(across, along)
        cos_arc = sin1 * sin2 + cos1 * cos2 * np.cos(longitude)
        arc = np.arctan2(sin_arc, cos_arc)
        with np.errstate(invalid="ignore", divide="ignore"):
            sin_azimuth = np.where(sin_arc > 0, cos1 * cos2 * np.sin(longitude) / sin_arc, 0.0)
            cos2_azimuth = 1 - sin_azimuth**2
            middle = np.where(cos2_azimuth > 0, cos_arc - 2 * sin1 * sin2 / cos2_azimuth, 0.0)
        c = FLATTENING / 16 * cos2_azimuth * (4 + FLATTENING * (4 - 3 * cos2_azimuth))
        inner = middle + c * cos_arc * (2 * middle**2 - 1)
        before = longitude
        longitude = apart + (1 - c) * FLATTENING * sin_azimuth * (arc + c * sin_arc * inner)
        if np.all(np.abs(longitude - before) < 1e-13):
            break
    u = cos2_azimuth * (EQUATOR_RADIUS**2 / _POLE_RADIUS**2 - 1)
    a = 1 + u / 16384 * (4096 + u * (-768 + u * (320 - 175 * u)))
    b = u / 1024 * (256 + u * (-128 + u * (74 - 47 * u)))
    cubic = b / 6 * middle * (4 * sin_arc**2 - 3) * (4 * middle**2 - 3)
    turned = b * sin_arc * (middle + b / 4 * (cos_arc * (2 * middle**2 - 1) - cubic))
    return np.asarray(_POLE_RADIUS * a * (arc - turned))


def metres_per_degree(latitude: Float[NDArray[np.float64], "..."]) -> Degrees:
    """Metres of a degree of longitude and of a degree of latitude, at a latitude."""
    sine = np.sin(np.radians(latitude))
    bend = 1 - _ECCENTRICITY * sine**2
    east = EQUATOR_RADIUS / np.sqrt(bend) * np.cos(np.radians(latitude))
    north = EQUATOR_RADIUS * (1 - _ECCENTRICITY) / bend**1.5
    return np.radians(np.stack([east, north], axis=-1))


def local_metres(points: Degrees, origin: Degrees) -> Degrees:
    """East and north of an origin in metres, in a plane; good to a millionth within some kilometres."""
    middle = np.asarray((points[..., 1] + origin[..., 1]) / 2)
    apart = points - origin
    apart = np.stack([(apart[..., 0] + 180) % 360 - 180, apart[..., 1]], axis=-1)
    return apart * metres_per_degree(middle)
