"""Near-duplicates: pictures that are closer to one another than chance explains, by a threshold that the data set.

Around a picture, the number of others within a distance r grows as r to the power m, where m is the intrinsic dimension of the
vectors (Levina and Bickel, "Maximum likelihood estimation of intrinsic dimension", 2004). So the distance r_k of its k-th
neighbour says how many are expected within any smaller distance: k (r / r_k)^m. A pair is a near-duplicate if, for both
pictures, so few are expected within their distance that the whole folder would show less than one such pair in twenty by chance.
Where pictures are alike (plain sky, steel), neighbours are close and the limit is small; where they differ, it is large.
Equal files are duplicates at any distance.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unmask.progress import counted

NEIGHBOURS = 20
"""The k of the rule; groups of more copies than that are still found, if their vectors are equal or a threshold is given."""

FALSE_PAIRS = 0.05
"""Pairs that chance may give in the whole folder."""

_AT_ONCE = 256  # rows that are compared with all others at a time
_WIDEST = 20.0  # a row whose first neighbour of these is so many times nearer than the last has mostly copies around it
_FARTHER = 4.0  # more than the range of cosine similarities
_EQUAL = 1e-4
"""A distance that rounding explains: vectors of equal pictures."""


class Pair(NamedTuple):
    """Two rows that are near-duplicates; the first is the smaller."""

    first: int
    second: int
    score: float
    """Cosine similarity."""
    same_file: bool
    """Whether their contents are equal."""


@dataclass(frozen=True)
class Threshold:
    """How close two pictures must be, and where that comes from."""

    words: str
    """The rule, in a line."""
    limits: Float[Tensor, " n"]
    """For each row the largest distance to a near-duplicate."""


class Near(NamedTuple):
    """The nearest rows of each row, without itself."""

    rows: Int[Tensor, "n k"]
    distances: Float[Tensor, "n k"]
    """Between vectors of length 1, from 0 to 2; rising."""


def near_duplicates(
    matrix: Float[Tensor, "n d"],
    hashes: Sequence[str],
    splits: Sequence[str],
    score: float | None = None,
) -> tuple[list[Pair], Threshold]:
    """The near-duplicates, the closest first, and the threshold: `score` if it is given, else from the data.

    Args:
        matrix: vectors of length 1, of at least three pictures.
        hashes: the contents of the pictures.
        splits: the split of each; with several, copies are also looked for among the neighbours in each split.
        score: cosine similarity, from -1 to 1.
    """
    count = len(matrix)
    most = min(NEIGHBOURS, count - 1)
    lists = near_of_splits(matrix, most, splits)
    threshold = from_data(lists[0]) if score is None else fixed(score, count)
    found = {
        (pair.first, pair.second): pair
        for one in lists
        for pair in pairs(one, threshold, hashes, splits)
    }
    return _ordered(found.values()), threshold


def near(matrix: Float[Tensor, "n d"], count: int) -> Near:
    """The `count` nearest rows of each row, exactly."""
    return near_of_splits(matrix, count, [""] * len(matrix))[0]


def near_of_splits(matrix: Float[Tensor, "n d"], count: int, splits: Sequence[str]) -> list[Near]:
    """The `count` nearest rows of each row; and for each split, if there are several, those of the split before all others.

    A picture with many neighbours in its own split, or in a third one, may have a copy in another.
    """
    total, names = len(matrix), sorted(set(splits))
    numbers = torch.tensor([names.index(split) for split in splits])
    only: list[int | None] = [None, *(range(len(names)) if len(names) > 1 else ())]
    lists = [
        Near(torch.empty(total, count, dtype=torch.int64), torch.empty(total, count)) for _ in only
    ]
    starts = range(0, total, _AT_ONCE)
    for start in counted(starts, total, "comparing pictures", lambda _: _AT_ONCE):
        part = matrix[start : start + _AT_ONCE]
        rows = slice(start, start + len(part))
        scores = part @ matrix.T
        scores[torch.arange(len(part)), torch.arange(start, start + len(part))] = -torch.inf
        for split, (found, distances) in zip(only, lists, strict=True):
            allowed = scores if split is None else scores - _FARTHER * (numbers != split)
            found[rows], distances[rows] = _nearest(matrix, part, allowed, count)
    return lists


def _nearest(
    matrix: Float[Tensor, "n d"],
    part: Float[Tensor, "b d"],
    scores: Float[Tensor, "b n"],
    count: int,
) -> Near:
    """The rows with the highest scores, by their distances."""
    found = scores.topk(count, dim=1).indices
    # differences of near vectors are exact, where 2 - 2 cos would cancel
    distance = (part[:, None] - matrix[found]).norm(dim=2)
    order = distance.argsort(dim=1, stable=True)
    return Near(found.gather(1, order), distance.gather(1, order))


def from_data(near_rows: Near) -> Threshold:
    """The threshold of the rule above."""
    count, most = near_rows.distances.shape
    far = near_rows.distances[:, -1]
    dimension = intrinsic_dimension(near_rows.distances)
    expected = FALSE_PAIRS / count  # neighbours of a picture within the limit
    factor = (expected / most) ** (1 / dimension)
    limits = (far * factor).clamp(min=_EQUAL)
    words = (
        f"closer than {factor:.2f} of the distance of the {most}th neighbour (intrinsic dimension {dimension:.1f}); chance "
        f"would give {FALSE_PAIRS:g} such pairs among {count:,} pictures"
    )
    return Threshold(words, limits)


def fixed(score: float, count: int) -> Threshold:
    """The threshold of a cosine similarity, from -1 to 1."""
    distance = (2 - 2 * score) ** 0.5
    return Threshold(
        f"a cosine similarity of at least {score:g}", torch.full((count,), distance + _EQUAL)
    )


def intrinsic_dimension(distances: Float[Tensor, "n k"]) -> float:
    """The median over rows of the dimension m for which distances of neighbours are distributed as r^(m-1).

    The nearest quarter of the neighbours is left out, because near-duplicates are among them. With u = log(r_k / r) of the
    others, the density of u is m exp(-m u) / (1 - exp(-m c)) on [0, c]. The likelihood of a row is largest where the mean of
    u equals its expectation, which falls with m, so m is found by bisection. The median, because rows at the edge of a cluster
    see a far lower dimension.
    """
    far = distances[:, distances.shape[1] // 4 :].double()
    far = far[(far[:, 0] > far[:, -1] / _WIDEST) & (far[:, 0] < far[:, -1])]
    if far.shape[1] < 3 or not len(far):
        return 1.0
    width = (far[:, -1] / far[:, 0]).log()
    mean = (far[:, -1:] / far[:, 1:-1]).log().mean(1)
    low, high = torch.full_like(mean, 1e-3), torch.full_like(mean, 1e3)
    for _ in range(50):
        middle = (low * high).sqrt()
        expected = 1 / middle - width / torch.expm1(middle * width)
        low, high = (
            torch.where(expected > mean, middle, low),
            torch.where(expected > mean, high, middle),
        )
    return max(1.0, float(low.median()))


def pairs(
    near_rows: Near,
    threshold: Threshold,
    hashes: Sequence[str],
    splits: Sequence[str] | None = None,
) -> list[Pair]:
    """The near-duplicates, the closest first; and equal files at any distance: each with the first of each split."""
    splits = splits or [""] * len(hashes)
    limits = threshold.limits
    found: dict[tuple[int, int], Pair] = {}
    close = near_rows.distances <= torch.minimum(limits[:, None], limits[near_rows.rows])
    for row, column in close.nonzero().tolist():
        other, distance = int(near_rows.rows[row, column]), float(near_rows.distances[row, column])
        key = (min(row, other), max(row, other))
        same = hashes[row] == hashes[other]
        found[key] = Pair(*key, 1 - distance**2 / 2, same)
    first: dict[str, dict[str, int]] = {}
    for row, (content, split) in enumerate(zip(hashes, splits, strict=True)):
        known = first.setdefault(content, {})
        for before in known.values():
            found.setdefault((before, row), Pair(before, row, 1.0, True))
        known.setdefault(split, row)
    return _ordered(found.values())


def _ordered(found: Iterable[Pair]) -> list[Pair]:
    return sorted(found, key=lambda pair: (-pair.score, pair.first, pair.second))


def groups(found: Sequence[Pair]) -> list[list[int]]:
    """Rows that are linked by pairs, in order; the largest group first."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while parent.setdefault(row, row) != row:
            row = parent[row]
        return row

    for pair in found:
        first, second = sorted((root(pair.first), root(pair.second)))
        parent[second] = first
    members: dict[int, list[int]] = {}
    for row in sorted(parent):
        members.setdefault(root(row), []).append(row)
    return sorted(members.values(), key=lambda rows: (-len(rows), rows[0]))
