"""Tiles of web maps: squares of Web Mercator, halved at each zoom; x counts from the west, y from the north.

(OGC 17-083r4, WorldWebMercatorQuad. In TMS, y counts from the south.)
"""

from unmask.geo.crs import MERCATOR_EDGE, WEB_MERCATOR
from unmask.geo.georeference import Georeference


def tiles_across(zoom: int) -> int:
    """Tiles of a row of the whole Earth."""
    return 2**zoom


def from_tms(y: int, zoom: int) -> int:
    """The number of a row counted from the north, from one counted from the south, and back."""
    return tiles_across(zoom) - 1 - y


def georeference_of(zoom: int, x: int, y: int, pixels: int) -> Georeference:
    """The georeference of a mosaic whose first tile is (x, y), of tiles with `pixels` a side."""
    step = 2 * MERCATOR_EDGE / tiles_across(zoom) / pixels
    left, top = -MERCATOR_EDGE + x * pixels * step, MERCATOR_EDGE - y * pixels * step
    return Georeference((step, 0.0, left, 0.0, -step, top), WEB_MERCATOR)
