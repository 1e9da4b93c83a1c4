"""How many directions features spread over."""

import torch
from jaxtyping import Float
from torch import Tensor

_ALIKE = 1e-5
"""Share of the features' norm under which a singular value is float32's rounding."""


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp(entropy) of the singular values as shares of their sum (Roy and Vetterli, "The Effective Rank", 2007).

    Between 1 and the smaller of n - 1 and d. Features are centred first, for their mean tells no image from another; what is left
    of features that are all alike is rounding, and counts as 1. Garrido and others (RankMe, 2023) use the same
    number, without centring, to judge encoders without labels.
    """
    exact = features.double()
    values = torch.linalg.svdvals(exact - exact.mean(0))
    values = values[values > _ALIKE * exact.norm()]
    shares = values / values.sum()
    return float((-(shares * shares.log()).sum()).exp())
