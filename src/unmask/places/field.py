"""The field of scores: how well the middle of a query fits at each tile of a grid; its peaks, and the margin between them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unmask.places.grid import Grid
from unmask.places.looks import View

Scores = Float[NDArray[np.float32], "r c"]
"""Of each cell of a grid; -inf where there is no tile."""


class Peak(NamedTuple):
    """A place in a field."""

    row: float
    column: float
    score: float
    view: View
    """Which fits best there."""


class Field(NamedTuple):
    """Scores under the view that fits best, which is another one from cell to cell."""

    grid: Grid
    scores: Scores
    views: Sequence[View]
    best: Int[NDArray[np.int16], "r c"]
    """The number of each cell's view."""


def fields_of(
    vectors: Sequence[Float[Tensor, "_ d"]],
    shifts: Sequence[Sequence[tuple[int, int]]],
    matrix: Float[Tensor, "n d"],
    grid: Grid,
) -> list[Scores]:
    """For each view, the mean over its pieces of their scores, each moved by its shift.

    A piece that would lie beyond the map, or on a hole, counts as 0, which is the score of vectors that have nothing in common.
    """
    there = grid.rows >= 0
    rows = grid.rows[there]
    is_all = len(rows) == len(matrix) and bool((rows == np.arange(len(rows))).all())
    tiles = matrix if is_all else matrix[torch.from_numpy(rows)]
    scores = (
        torch.cat(list(vectors)) @ tiles.T
    ).numpy()  # [pieces tiles], one product for all views
    found: list[Scores] = []
    first = 0
    for own in shifts:
        total = np.zeros(grid.rows.shape, np.float32)
        for number, (down, across) in enumerate(own, first):
            one = np.zeros(grid.rows.shape, np.float32)
            one[there] = scores[number]
            total += _moved(one, down, across)
        first += len(own)
        found.append(np.where(there, total / len(own), -np.inf).astype(np.float32))
    return found


def _moved(scores: Scores, down: int, across: int) -> Scores:
    """The score at (row + down, column + across) of each cell; 0 beyond the grid."""
    moved = np.zeros_like(scores)
    height, width = scores.shape
    rows = slice(max(0, -down), min(height, height - down))
    columns = slice(max(0, -across), min(width, width - across))
    if rows.start < rows.stop and columns.start < columns.stop:
        moved[rows, columns] = scores[
            rows.start + down : rows.stop + down, columns.start + across : columns.stop + across
        ]
    return moved


def best_of(grid: Grid, views: Sequence[View], scores: Sequence[Scores]) -> Field:
    """The highest score of each cell over several views of one grid."""
    highest, best = scores[0].copy(), np.zeros(scores[0].shape, np.int16)
    for number, one in enumerate(scores[1:], 1):
        better = one > highest
        highest[better], best[better] = one[better], number
    return Field(grid, highest, views, best)


def peaks_of(
    field: Field, count: int, allowed: Bool[NDArray[np.bool_], "r c"] | None = None
) -> list[Peak]:
    """The highest cells that lie at least a tile apart, the best first; places are refined between cells.

    Fewer than `count` where the map has no room for more.
    """
    left = field.scores.copy()
    if allowed is not None:
        left[~allowed] = -np.inf
    rows, columns = np.indices(left.shape)
    across, down = field.grid.steps
    found: list[Peak] = []
    while len(found) < count and np.isfinite(left).any():
        row, column = (int(index) for index in np.unravel_index(int(left.argmax()), left.shape))
        found.append(
            Peak(
                row + _finer(field.scores[:, column], row),
                column + _finer(field.scores[row], column),
                float(left[row, column]),
                field.views[int(field.best[row, column])],
            )
        )
        near = np.hypot((rows - row) * down, (columns - column) * across) < field.grid.metres
        left[near] = -np.inf
    return found


def margin_of(peaks: Sequence[Peak]) -> float:
    """How much higher the best peak is than the second; 0 without a second, since nothing is known then."""
    return peaks[0].score - peaks[1].score if len(peaks) > 1 else 0.0


def _finer(line: Float[NDArray[np.float32], " n"], place: int) -> float:
    """Where the parabola through a maximum and its neighbours is highest, from -0.5 to 0.5 of a cell."""
    if not 0 < place < len(line) - 1:
        return 0.0
    before, here, after = (float(line[place + step]) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    if not np.isfinite([before, after]).all() or bend >= 0:
        return 0.0
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5))
