"""Statistical tests over seeds: whether two variations differ, and whether a study is informative."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

_SIGNIFICANCE = 0.05
_STANDARD_ERRORS = 3.0

Verdict = Literal["agree", "disagree", "within noise", "one seed"]


class Pair(NamedTuple):
    """Two variations with different results in the paper, and our results."""

    better: str
    """The better one in the paper."""
    worse: str
    published: float
    """The paper's difference, in points."""
    ours: float
    """Our difference, in points; negative if the order is reversed."""
    verdict: Verdict


def spread(values: Sequence[float]) -> float:
    """Standard deviation; 0 for one value."""
    return stdev(values) if len(values) > 1 else 0.0


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two means differ by Welch's test at 5 %, without correction for several pairs; False with one value each."""
    if min(len(one), len(other)) < 2:
        return False
    if spread(one) == spread(other) == 0.0:
        return mean(one) != mean(other)
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one of the two may have equal values
        test: Any = stats.ttest_ind(one, other, equal_var=False)
    return bool(test.pvalue < _SIGNIFICANCE)


def compared(ours: Mapping[str, Sequence[float]], published: Mapping[str, float]) -> list[Pair]:
    """All pairs with different results in the paper; our results are shares, the paper's are per cent."""
    pairs: list[Pair] = []
    both = [name for name in ours if name in published]
    for one, other in combinations(both, 2):
        if published[one] == published[other]:
            continue
        better, worse = (one, other) if published[one] > published[other] else (other, one)
        difference = 100 * (mean(ours[better]) - mean(ours[worse]))
        pairs.append(
            Pair(
                better=better,
                worse=worse,
                published=published[better] - published[worse],
                ours=difference,
                verdict=_verdict(ours[better], ours[worse], difference),
            )
        )
    return pairs


def _verdict(better: Sequence[float], worse: Sequence[float], difference: float) -> Verdict:
    if min(len(better), len(worse)) < 2:
        return "one seed"
    if not differ(better, worse):
        return "within noise"
    return "agree" if difference > 0 else "disagree"


def informative(base: Sequence[float], random: Sequence[float]) -> bool | None:
    """Whether a base is better than its random initialisation by three standard errors; None with one seed."""
    if min(len(base), len(random)) < 2:
        return None
    error = math.sqrt(spread(base) ** 2 / len(base) + spread(random) ** 2 / len(random))
    return mean(base) - mean(random) > _STANDARD_ERRORS * error
