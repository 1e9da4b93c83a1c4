"""Pieces of a query that look like tiles: of the tiles' ground size, upright in the map."""

import math
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
    inside = _points(size, view, grid, (0, 0), 32)
    return float((inside.abs() <= 1).all(-1).float().mean())


def pieces_of(image: Shaped[Tensor, "c h w"], view: View, grid: Grid, side: int) -> Pieces:
    """The middle piece, and others around it that the picture shows; up to five, as far apart as it allows.

    Args:
        image: the query.
        view: its size on the ground and its direction.
        grid: the tiles to compare with.
        side: pixels of a piece.
    """
    size = Size(*image.shape[-2:])
    shifts = _shifts(size, view, grid)
    scaled = _at_scale(image, view, grid.metres / side)
    values = scaled.float()
    points = torch.stack([_points(size, view, grid, shift, side) for shift in shifts])
    pieces = F.grid_sample(
        values.expand(len(shifts), *values.shape),
        points,
        padding_mode="reflection",
        align_corners=False,
    )
    if image.dtype == torch.uint8:
        pieces = pieces.round().clamp(0, 255).to(torch.uint8)
    return Pieces(pieces, shifts)


def _shifts(size: Size, view: View, grid: Grid) -> list[tuple[int, int]]:
    """Steps of the grid to pieces that lie within the picture: the middle, then each as far as possible from those before."""
    apart = [max(1, round(grid.metres / 3 / step)) for step in reversed(grid.steps)]
    around = [
        (row * apart[0], column * apart[1]) for row in range(-3, 4) for column in range(-3, 4)
    ]
    shown = [shift for shift in around if _is_shown(size, view, grid, shift)]
    chosen = [(0, 0)]
    while len(chosen) < _MOST_PIECES and shown:
        farthest = max(shown, key=lambda shift: min(math.dist(shift, one) for one in chosen))
        if farthest in chosen:
            break
        chosen.append(farthest)
    return chosen


def _is_shown(size: Size, view: View, grid: Grid, shift: tuple[int, int]) -> bool:
    inside = (_points(size, view, grid, shift, 16).abs() <= 1).all(-1)
    return float(inside.float().mean()) >= _COVERED


def _points(
    size: Size, view: View, grid: Grid, shift: tuple[int, int], side: int
) -> Float[Tensor, "side side 2"]:
    """Where the pixels of a piece lie in the query, from -1 to 1 across and down."""
    down, across = shift[0] * grid.steps[1], shift[1] * grid.steps[0]
    along = ((torch.arange(side) + 0.5) / side - 0.5) * grid.metres
    y, x = torch.meshgrid(along + down, along + across, indexing="ij")
    turn = torch.deg2rad(torch.tensor(view.heading - grid.bearing))
    right, below = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    height = view.width * size.height / size.width
    return torch.stack([right * 2 / view.width, below * 2 / height], dim=-1)


def _at_scale(
    image: Shaped[Tensor, "c h w"], view: View, metres_per_pixel: float
) -> Shaped[Tensor, "c new_h new_w"]:
    """The query reduced to the scale of the pieces, so that sampling leaves out nothing; never enlarged."""
    factor = view.width / image.shape[-1] / metres_per_pixel
    if factor >= 1:
        return image
    height, width = (max(1, round(side * factor)) for side in image.shape[-2:])
    return resize(image, Size(height, width))
