"""Coordinate reference systems, and their way to degrees of WGS 84.

Degrees (EPSG:4326) and Web Mercator (EPSG:3857) are computed here; all others, such as UTM, by pyproj (extra `places`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from unmask.errors import DataError, ResourceError, first_line, with_extra

EQUATOR_RADIUS = 6_378_137.0
"""Of WGS 84, and of the sphere of Web Mercator, in metres."""

_DEGREES = {"EPSG:4326", "OGC:CRS84"}
_MERCATOR = {"EPSG:3857", "EPSG:900913", "EPSG:3785"}

Points = Float[NDArray[np.float64], "... 2"]


@dataclass(frozen=True)
class Crs:
    """A reference system; x is east and y is north, also where its authority orders them otherwise."""

    name: str
    """EPSG:NUMBER, or WKT."""

    def check(self) -> None:
        """Refuse a system that cannot be computed.

        Raises:
            ResourceError: if it needs pyproj, which is missing.
            DataError: if pyproj does not know it.
        """
        self.to_degrees(np.zeros((1, 2)))

    @property
    def in_degrees(self) -> bool:
        """Whether coordinates are degrees of WGS 84."""
        return self.name in _DEGREES

    def to_degrees(self, points: Points) -> Points:
        """From x and y to longitude and latitude of WGS 84, in degrees."""
        if self.in_degrees:
            return points
        if self.name in _MERCATOR:
            x, y = points[..., 0], points[..., 1]
            latitude = np.arctan(np.sinh(y / EQUATOR_RADIUS))
            return np.degrees(np.stack([x / EQUATOR_RADIUS, latitude], axis=-1))
        return _moved(_transformers(self.name)[0], points)

    def from_degrees(self, points: Points) -> Points:
        """From longitude and latitude of WGS 84, in degrees, to x and y."""
        if self.in_degrees:
            return points
        if self.name in _MERCATOR:
            longitude, latitude = np.radians(points[..., 0]), np.radians(points[..., 1])
            return EQUATOR_RADIUS * np.stack([longitude, np.arcsinh(np.tan(latitude))], axis=-1)
        return _moved(_transformers(self.name)[1], points)


DEGREES = Crs("EPSG:4326")
WEB_MERCATOR = Crs("EPSG:3857")
MERCATOR_EDGE = math.pi * EQUATOR_RADIUS
"""The largest x and y of Web Mercator's square, in metres."""


def crs_named(text: str) -> Crs:
    """The system that a user names: EPSG:32651, epsg:32651, 32651, or WKT.

    Raises:
        ResourceError: if it needs pyproj, which is missing.
        DataError: if nobody knows it.
    """
    word = text.strip()
    name = f"EPSG:{word}" if word.isdecimal() else word
    name = name.upper() if name.upper().startswith("EPSG:") else name
    crs = Crs(name)
    crs.check()
    return crs


def _moved(function: Callable[..., Any], points: Points) -> Points:
    x, y = function(points[..., 0], points[..., 1])
    return np.stack([np.asarray(x), np.asarray(y)], axis=-1)


@lru_cache(maxsize=8)
def _transformers(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions to degrees, and back."""
    try:
        import pyproj
        from pyproj.exceptions import ProjError
    except ImportError:
        raise ResourceError(
            f"the coordinates of {_brief(name)} need the package pyproj: {with_extra('places')}"
        ) from None
    try:
        system = pyproj.CRS.from_user_input(name)
        there = pyproj.Transformer.from_crs(system, "EPSG:4326", always_xy=True)
        back = pyproj.Transformer.from_crs("EPSG:4326", system, always_xy=True)
    except ProjError as error:
        raise DataError(
            f"the reference system {_brief(name)} is not known ({first_line(error)[:100]}); name one as EPSG:NUMBER, such as "
            "--crs EPSG:32651"
        ) from None
    return there.transform, back.transform


def _brief(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:37]}..."
