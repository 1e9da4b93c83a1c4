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


def chance(
    truths: Sequence[Float[NDArray[np.float64], "2"]],
    tiles: Float[NDArray[np.float64], "n 2"],
    half_tile: float,
) -> PlacesScore:
    """What a tile that is drawn at random scores on this map, in expectation; of several draws, with replacement.

    Args:
        truths: longitude and latitude of each query.
        tiles: longitude and latitude of each tile.
        half_tile: in metres.
    """
    away = np.stack([metres_between(tiles, truth) for truth in truths])  # [queries tiles]
    hit = (away <= half_tile).mean(1)
    within = {f"{radius:g} m": float((away <= radius).mean()) for radius in RADII}
    return PlacesScore(
        "chance",
        len(truths),
        {**within, "half a tile": float(hit.mean())},
        float(np.median(away)),
        float(away.mean()),
        {f"R@{k}": float((1 - (1 - hit) ** k).mean()) for k in RANKS},
        None,
        None,
    )
