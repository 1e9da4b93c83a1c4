"""How good answers are: distances, recall, coverage and false fixes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from unmask.geo.distance import metres_between

RADII = (25.0, 50.0, 100.0)
"""In metres."""

RANKS = (1, 5, 10)


class Answer(NamedTuple):
    """The answer to a query whose place is known."""

    away: list[float]
    """Metres from the true place to each place, the best first."""
    half_tile: float
    """Half the side of the tiles, in metres."""
    fix: bool


class PlacesScore(NamedTuple):
    """Over all queries; shares are from 0 to 1."""

    arm: str
    queries: int
    within: dict[str, float]
    """Share of best places within 25, 50 and 100 m, and within half a tile."""
    median: float
    """Metres of the best places."""
    mean: float
    recall: dict[str, float]
    """Share of queries with one of the first K places within half a tile."""
    coverage: float | None
    """Share of queries with a fix; None for chance."""
    false_fixes: float | None
    """Share of fixes farther away than half a tile; None without fixes."""


def score(arm: str, answers: Sequence[Answer]) -> PlacesScore:
    """The scores of an arm."""
    best = np.array([answer.away[0] for answer in answers])
    half = np.array([answer.half_tile for answer in answers])
    fixes = np.array([answer.fix for answer in answers])
    wrong = fixes & (best > half)
    within = {f"{radius:g} m": float((best <= radius).mean()) for radius in RADII}
    return PlacesScore(
        arm,
        len(answers),
        {**within, "half a tile": float((best <= half).mean())},
        float(np.median(best)),
        float(best.mean()),
        {f"R@{k}": _recall(answers, k) for k in RANKS},
        float(fixes.mean()),
        float(wrong.sum() / fixes.sum()) if fixes.any() else None,
    )


def _recall(answers: Sequence[Answer], count: int) -> float:
    return float(np.mean([min(one.away[:count]) <= one.half_tile for one in answers]))


class Guess(NamedTuple):
    """A query, and the tiles that it is compared with."""

    truth: Float[NDArray[np.float64], "2"]
    """Longitude and latitude."""
    tiles: Float[NDArray[np.float64], "n 2"]
    """Likewise."""
    half_tile: float
    """In metres."""


def chance(guesses: Sequence[Guess]) -> PlacesScore:
    """What a tile that is drawn at random scores on this map, in expectation; of several draws, with replacement."""
    away = [metres_between(one.tiles, one.truth) for one in guesses]
    hit = np.array([(m <= g.half_tile).mean() for m, g in zip(away, guesses, strict=True)])
    within = {f"{radius:g} m": _mean([m <= radius for m in away]) for radius in RADII}
    return PlacesScore(
        "chance",
        len(guesses),
        {**within, "half a tile": float(hit.mean())},
        float(np.median(np.concatenate(away))),
        _mean(away),
        {f"R@{k}": float((1 - (1 - hit) ** k).mean()) for k in RANKS},
        None,
        None,
    )


def _mean(values: Sequence[NDArray[np.generic]]) -> float:
    """Over queries, of the means over their tiles."""
    return float(np.mean([one.mean() for one in values]))
