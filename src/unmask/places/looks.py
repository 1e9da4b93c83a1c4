"""Pieces of a query that look like tiles: of the tiles' ground size, upright in the map."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.data.geometry import resize
from unmask.places.grid import Grid

LEAST_COVERED = 0.8
"""Share of the middle piece that the picture must show."""

_COVERED = 0.97  # of all other pieces
_MOST_PIECES = 5


class View(NamedTuple):
    """What is believed of a query."""

    width: float
    """Its width on the ground, in metres."""
    heading: float
    """The compass direction of its upper edge, in degrees."""


class Pieces(NamedTuple):
    """Pieces of a query under one view."""

    images: Shaped[Tensor, "k c side side"]
    shifts: list[tuple[int, int]]
    """Rows and columns of the grid from the middle of the query to that of each piece."""


def covered(size: Size, view: View, grid: Grid) -> float:
    """The share of the middle piece that a picture shows."""
    return float(_shown(size, view, grid, [(0, 0)], 32))


def pieces_of(
    image: Shaped[Tensor, "c h w"], views: Sequence[View], grid: Grid, side: int
) -> list[Pieces]:
    """For each view, the middle piece, and others around it that the picture shows; up to five, as far apart as it allows.

    Args:
        image: the query.
        views: its sizes on the ground and directions.
        grid: the tiles to compare with.
        side: pixels of a piece.
    """
    size = Size(*image.shape[-2:])
    scaled = {
        width: at_scale(image, width, grid.metres / side).float()
        for width in {view.width for view in views}
    }
    found: list[Pieces] = []
    for view in views:
        shifts = _shifts(size, view, grid)
        values = scaled[view.width]
        pieces = F.grid_sample(
            values.expand(len(shifts), *values.shape),
            _points(size, view, grid, shifts, side),
            padding_mode="reflection",
            align_corners=False,
        )
        if image.dtype == torch.uint8:
            pieces = pieces.round().clamp(0, 255).to(torch.uint8)
        found.append(Pieces(pieces, shifts))
    return found


def _shifts(size: Size, view: View, grid: Grid) -> list[tuple[int, int]]:
    """Steps of the grid to pieces that lie within the picture: the middle, then each as far as possible from those before."""
    apart = [max(1, round(grid.metres / 3 / step)) for step in reversed(grid.steps)]
    around = [
        (row * apart[0], column * apart[1]) for row in range(-3, 4) for column in range(-3, 4)
    ]
    shares = _shown(size, view, grid, around, 16).tolist()
    shown = [shift for shift, share in zip(around, shares, strict=True) if share >= _COVERED]
    chosen = [(0, 0)]
    while len(chosen) < _MOST_PIECES and shown:
        farthest = max(shown, key=lambda shift: min(math.dist(shift, one) for one in chosen))
        if farthest in chosen:
            break
        chosen.append(farthest)
    return chosen


def _shown(
    size: Size, view: View, grid: Grid, shifts: Sequence[tuple[int, int]], side: int
) -> Float[Tensor, " k"]:
    """The share of each piece that a picture shows, by so many points a side."""
    inside = _points(size, view, grid, shifts, side).abs() <= 1
    return inside.all(-1).float().mean((1, 2))


def _points(
    size: Size, view: View, grid: Grid, shifts: Sequence[tuple[int, int]], side: int
) -> Float[Tensor, "k side side 2"]:
    """Where the pixels of pieces lie in the query, from -1 to 1 across and down."""
    down, across = torch.tensor(shifts).T * torch.tensor(grid.steps).flip(0)[:, None]
    along = ((torch.arange(side) + 0.5) / side - 0.5) * grid.metres
    y, x = along[:, None] + down[:, None, None], along[None] + across[:, None, None]
    turn = torch.deg2rad(torch.tensor(view.heading - grid.bearing))
    right, below = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    height = view.width * size.height / size.width
    return torch.stack([right * 2 / view.width, below * 2 / height], dim=-1)


def at_scale(
    image: Shaped[Tensor, "c h w"], width: float, metres_per_pixel: float
) -> Shaped[Tensor, "c new_h new_w"]:
    """The query reduced to the scale of the pieces, so that sampling leaves out nothing; never enlarged."""
    factor = width / image.shape[-1] / metres_per_pixel
    if factor >= 1:
        return image
    return resize(image, Size(*(max(1, round(side * factor)) for side in image.shape[-2:])))
