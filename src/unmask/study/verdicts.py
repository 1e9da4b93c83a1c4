"""What the seeds allow to be said: whether two variations differ, and whether a study says anything at all."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

_CHANCE_OF_ERROR = 0.05
_STANDARD_ERRORS = 3.0

Verdict = Literal["agree", "disagree", "within noise", "one seed"]


class Pair(NamedTuple):
    """Two variations that the paper puts in an order, and ours."""

    better: str
    """In the paper."""
    worse: str
    published: float
    """By how much, in points."""
    ours: float
    """By how much here; negative where the order is the other."""
    verdict: Verdict


def spread(values: Sequence[float]) -> float:
    """Standard deviation; 0 for one value."""
    return stdev(values) if len(values) > 1 else 0.0


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two means differ by Welch's test at 5 %, for this pair alone; never with one value each."""
    if min(len(one), len(other)) < 2:
        return False
    if spread(one) == spread(other) == 0.0:
        return mean(one) != mean(other)
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one of the two may hold equal values
        found: Any = stats.ttest_ind(one, other, equal_var=False)
    return bool(found.pvalue < _CHANCE_OF_ERROR)


def compared(ours: Mapping[str, Sequence[float]], published: Mapping[str, float]) -> list[Pair]:
    """Every pair that the paper puts in an order; ours are shares, the paper's per cent."""
    found: list[Pair] = []
    both = [name for name in ours if name in published]
    for one, other in combinations(both, 2):
        if published[one] == published[other]:
            continue
        better, worse = (one, other) if published[one] > published[other] else (other, one)
        off = 100 * (mean(ours[better]) - mean(ours[worse]))
        found.append(
            Pair(
                better,
                worse,
                published[better] - published[worse],
                off,
                _verdict(ours[better], ours[worse], off),
            )
        )
    return found


def _verdict(better: Sequence[float], worse: Sequence[float], off: float) -> Verdict:
    if min(len(better), len(worse)) < 2:
        return "one seed"
    if not differ(better, worse):
        return "within noise"
    return "agree" if off > 0 else "disagree"


def informative(base: Sequence[float], random: Sequence[float]) -> bool | None:
    """Whether a base beats its own random initialisation by three standard errors; None with one seed."""
    if min(len(base), len(random)) < 2:
        return None
    error = math.sqrt(spread(base) ** 2 / len(base) + spread(random) ** 2 / len(random))
    return mean(base) - mean(random) > _STANDARD_ERRORS * error
