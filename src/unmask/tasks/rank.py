"""The effective rank of features."""

import torch
from jaxtyping import Float
from torch import Tensor

_ALIKE = 1e-5
"""Singular values below this share of the features' norm are float32 rounding errors."""


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp(entropy) of the singular values as shares of their sum (Roy and Vetterli, "The Effective Rank", 2007).

    The result is between 1 and min(n - 1, d). Features are centred first, because their mean does not distinguish
    images; identical features have rank 1. Garrido and others (RankMe, 2023) use the same number, without centring, to
    evaluate encoders without labels.
    """
    exact = features.double()
    values = torch.linalg.svdvals(exact - exact.mean(0))
    values = values[values > _ALIKE * exact.norm()]
    shares = values / values.sum()
    return float((-(shares * shares.log()).sum()).exp())
