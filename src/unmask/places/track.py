"""Pictures in order of flight: the track through their score fields that fits best, with no step longer than a drone flies."""

import math
from collections.abc import Sequence

import numpy as np

from unmask.geo.distance import metres_between
from unmask.places.calibration import FALSE_RATE
from unmask.places.field import Field, Scores
from unmask.places.grid import Grid
from unmask.places.locating import Located

_LEAST_AGREED = 2  # fixes on a track; a single one is no more than that picture's own verdict


def smoothed(
    fields: Sequence[Field], metres: float, numbers: Sequence[int] | None = None
) -> list[Field]:
    """For each picture and cell, the mean score of the best track through that cell (the max-marginals of Viterbi's algorithm).

    The highest cells of all fields make the best track; the margin of a picture is that to the best track that passes elsewhere.

    Args:
        fields: of one grid, in order of flight.
        metres: the longest step from a picture to the next; cells may be that and a diagonal of a cell apart.
        numbers: the place of each picture in the flight, ascending, if some pictures of it are left out; the way over a gap
            may be as long as all its steps.
    """
    grid = fields[0].grid
    # pictures lie anywhere in their cells, so the middles of these may be a diagonal farther apart
    slack = math.hypot(*grid.steps)
    steps = np.diff(range(len(fields)) if numbers is None else numbers)
    reach = [metres * int(step) + slack for step in steps]
    before = [fields[0].scores]
    for field, most in zip(fields[1:], reach, strict=True):
        before.append(field.scores + reached(before[-1], grid, most))
    after = [np.zeros_like(fields[0].scores)]
    for field, most in zip(reversed(fields[1:]), reversed(reach), strict=True):
        after.append(reached(field.scores + after[-1], grid, most))
    count = np.float32(len(fields))
    return [
        field._replace(scores=(first + last) / count)
        for field, first, last in zip(fields, before, reversed(after), strict=True)
    ]


def on_track(
    alone: Sequence[tuple[Located, bool | None]], track: Sequence[Located]
) -> list[bool | None]:
    """For each picture, whether its place on a track is a fix; None if nothing was calibrated.

    A track is believed if most of the pictures that are a fix alone lie on it, within half a tile, and these are more than false fixes
    alone would make likely. On it, the pictures whose own best place is there are fixes; others may be of another place.
    """
    if all(fix is None for _, fix in alone):
        return [None] * len(alone)
    agrees = [
        float(metres_between(np.array(one.degrees[0]), np.array(there.degrees[0])))
        <= there.field.grid.metres / 2
        for (one, _), there in zip(alone, track, strict=True)
    ]
    fixes = [agreeing for (_, fix), agreeing in zip(alone, agrees, strict=True) if fix]
    agreed = sum(fixes)
    believed = agreed >= _LEAST_AGREED and agreed > len(fixes) / 2
    believed &= chance_of(agreed, len(alone), FALSE_RATE) <= FALSE_RATE
    return [believed and agreeing for agreeing in agrees]


def chance_of(least: int, count: int, share: float) -> float:
    """The probability of at least so many of `count` independent events that each have this probability (binomial distribution)."""
    return sum(
        math.comb(count, n) * share**n * (1 - share) ** (count - n) for n in range(least, count + 1)
    )


def reached(scores: Scores, grid: Grid, metres: float) -> Scores:
    """The highest score within so many metres of each cell."""
    height, width = scores.shape
    across, down = grid.steps
    rows, columns = min(height - 1, int(metres / down)), min(width - 1, int(metres / across))
    best = np.full_like(scores, -np.inf)
    for row in range(-rows, rows + 1):
        # the widest run of columns at this row; a running maximum over it
        reach = min(columns, int(math.sqrt(max(0.0, metres**2 - (row * down) ** 2)) / across))
        source = scores[max(0, row) : height + min(0, row)]
        target = best[max(0, -row) : height + min(0, -row)]
        np.maximum(target, _widest(source, reach), out=target)
    return best


def _widest(scores: Scores, reach: int) -> Scores:
    """The highest score within `reach` columns, by doubling windows."""
    size, width = 2 * reach + 1, scores.shape[1]
    padded = np.pad(scores, ((0, 0), (reach, reach)), constant_values=-np.inf)
    done = 1
    while done < size:
        step = min(done, size - done)
        padded = np.maximum(padded[:, : padded.shape[1] - step], padded[:, step:])
        done += step
    return padded[:, :width]
