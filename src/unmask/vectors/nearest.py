"""Exact search: the rows of a matrix that are nearest to queries, by cosine similarity."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GATHERED = 8  # below this share of the rows, copying them is cheaper than scoring all


class Neighbours(NamedTuple):
    """What is nearest to a query, the most similar first; equal ones in the order of the folder."""

    rows: Int[Tensor, " k"]
    scores: Float[Tensor, " k"]
    """Cosine similarity, from -1 to 1."""


def nearest(
    matrix: Float[Tensor, "n k"],
    query: Float[Tensor, " k"],
    count: int,
    rows: Int[Tensor, " m"] | None = None,
) -> Neighbours:
    """The `count` rows that are nearest to a query; all of `rows` if there are fewer.

    Args:
        matrix: vectors of length 1.
        query: a vector of length 1.
        count: how many are wanted.
        rows: the only rows to look at, rising; all if None.
    """
    if rows is None:
        return _best(torch.mv(matrix, query), count)
    if len(rows) * _GATHERED < len(matrix):
        scores = torch.mv(matrix[rows], query)
    else:
        scores = torch.mv(matrix, query)[rows]
    best = _best(scores, count)
    return Neighbours(rows[best.rows], best.scores)


def _best(scores: Float[Tensor, " n"], count: int) -> Neighbours:
    """The highest scores; `topk` alone does not say which of several equal ones it takes."""
    count = min(count, len(scores))
    least = scores.topk(count).values[-1]
    candidates = (scores >= least).nonzero().flatten()
    order = scores[candidates].argsort(descending=True, stable=True)[:count]
    return Neighbours(candidates[order], scores[candidates[order]])
