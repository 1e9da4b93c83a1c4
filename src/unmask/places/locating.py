"""From a picture to places: which views are tried, the field of each, and the best of them.

What the vectors of a picture have in common in all directions is its look (light, season, camera), not its place. So their mean
over directions is taken away from each before it is compared with the map.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.geo.distance import metres_between
from unmask.places.field import Field, Peak, best_of, fields_of, margin_of, peaks_of
from unmask.places.grid import Grid
from unmask.places.looks import LEAST_COVERED, View, at_scale, covered, pieces_of
from unmask.places.opened import OpenedPlaces

TURNS = 16
"""Directions that are tried if none is known."""

_SIZES = (1.0, 1.41, 2.0)
"""Shorter sides of a picture that are tried if its size on the ground is not known, in sides of the largest tile."""

_LARGER = 1.5  # than the map: a picture that reaches beyond its edge is fine


class Near(NamedTuple):
    """A circle in which the picture was taken."""

    latitude: float
    longitude: float
    radius: float
    """In metres."""


@dataclass(frozen=True)
class Beliefs:
    """What is known of pictures before they are located."""

    width: float | None = None
    """Ground size of the picture's width, in metres; None if it is not known."""
    heading: float | None = None
    """Compass direction of its upper edge, in degrees; None if it is not known."""
    turns: int = TURNS
    """Directions that are tried if none is known."""

    def widths(self, size: Size, largest: float) -> tuple[float, ...]:
        """The widths to try, of a picture of this size in pixels."""
        if self.width is not None:
            return (self.width,)
        return tuple(largest * factor * size.width / min(size) for factor in _SIZES)

    def views(self, size: Size, largest: float) -> list[View]:
        """The views to encode; of each width all directions, those that are believed first."""
        first = self.heading or 0.0
        headings = [(first + 360 / self.turns * turn) % 360 for turn in range(self.turns)]
        return [
            View(width, heading) for width in self.widths(size, largest) for heading in headings
        ]

    def believed(self, number: int) -> bool:
        """Whether a view, by its number, may be right; the others only show the picture's look."""
        return self.heading is None or number % self.turns == 0


class Located(NamedTuple):
    """Where a picture may have been taken."""

    field: Field
    peaks: list[Peak]
    """The best first."""
    margin: float
    """Between the best and the second."""

    @property
    def degrees(self) -> list[tuple[float, float]]:
        """Longitude and latitude of the peaks."""
        return [self.field.grid.degrees(peak.row, peak.column) for peak in self.peaks]


def field_for(opened: OpenedPlaces, image: Shaped[Tensor, "c h w"], beliefs: Beliefs) -> Field:
    """Compare a picture with the tiles of the fitting size, under all views.

    Raises:
        SettingsError: if the picture shows less than a tile or more than the map.
    """
    size = Size(*image.shape[-2:])
    grid = grid_for(opened, size, beliefs)
    views = beliefs.views(size, grid.metres)
    # light is changed in the pixels that pieces are made of: a picture of 12 million has some hundred thousand of them
    reduced = at_scale(image, max(view.width for view in views), grid.metres / opened.side)
    pieces = pieces_of(opened.relit(reduced), views, grid, opened.side)
    vectors = opened.encode(torch.cat([one.images for one in pieces]))
    parts = vectors.split([len(one.shifts) for one in pieces])
    believed: list[int] = []
    without_look: list[Tensor] = []
    for start in range(0, len(views), beliefs.turns):
        look = torch.cat(parts[start : start + beliefs.turns]).mean(0)
        for number in range(start, start + beliefs.turns):
            if beliefs.believed(number):
                believed.append(number)
                without_look.append(F.normalize(parts[number] - look, dim=1))
    shifts = [pieces[number].shifts for number in believed]
    scores = fields_of(without_look, shifts, opened.matrix, grid)
    return best_of(grid, [views[number] for number in believed], scores)


def judged(
    field: Field, count: int, allowed: Bool[NDArray[np.bool_], "r c"] | None = None
) -> Located:
    """The peaks of a field among allowed cells; raises SettingsError if there are none."""
    peaks = peaks_of(field, max(2, count), allowed)
    if not peaks:
        raise SettingsError(
            "--near or --prior-from-exif leaves no tile of the map; check latitude and longitude, or take a larger radius"
        )
    return Located(field, peaks, margin_of(peaks))


def grid_for(opened: OpenedPlaces, size: Size, beliefs: Beliefs) -> Grid:
    """The largest tiles of which a picture shows one in any direction that is tried.

    Raises:
        SettingsError: if a picture shows less than the smallest, or more than the map.
    """
    if beliefs.width is None:
        return opened.grids[-1]
    height = beliefs.width * size.height / size.width
    _check_size(opened, beliefs.width, height)
    for grid in reversed(opened.grids):
        views = beliefs.views(size, grid.metres)
        if min(covered(size, view, grid) for view in views) >= LEAST_COVERED:
            return grid
    smallest = opened.grids[0].metres
    fitting = min(beliefs.width, height) / 1.3
    raise SettingsError(
        f"a picture of {beliefs.width:,.0f} x {height:,.0f} m shows less than a tile of {smallest:g} m, the smallest of "
        f"{opened.searched.folder.root}; check the ground size, or embed the map with smaller --tile-metres, such as {fitting:.2g}"
    )


def _check_size(opened: OpenedPlaces, width: float, height: float) -> None:
    grid = opened.grids[0]
    cells = reversed(grid.rows.shape)
    across, down = ((n - 1) * s + grid.metres for n, s in zip(cells, grid.steps, strict=True))
    if max(width, height) > _LARGER * max(across, down):
        raise SettingsError(
            f"a picture of {width:,.0f} x {height:,.0f} m is larger than the map, which shows {across:,.0f} x {down:,.0f} m; check "
            "the ground size, which is the width of the picture in metres"
        )


def cells_near(opened: OpenedPlaces, grid: Grid, near: Near) -> Bool[NDArray[np.bool_], "r c"]:
    """The tiles whose middle lies in a circle."""
    there = grid.rows >= 0
    middle = np.array([near.longitude, near.latitude])
    inside = np.zeros(grid.rows.shape, bool)
    inside[there] = metres_between(opened.places.degrees[grid.rows[there]], middle) <= near.radius
    return inside
