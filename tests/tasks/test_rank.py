"""The effective rank of features against closed forms and a literal version."""

import math

import numpy as np
import pytest
import torch
from reference.problems import random
from torch import Tensor

from unmask.tasks.neighbors import effective_rank


def literal_rank(features: Tensor) -> float:
    """Roy and Vetterli, definition 1: eigenvalues instead of singular values, one term after the other."""
    rows = features.double().numpy()
    centred = rows - rows.mean(axis=0)
    values = np.sqrt(np.linalg.eigvalsh(centred.T @ centred).clip(min=0))
    entropy = 0.0
    for value in values / values.sum():
        entropy -= value * math.log(value) if value > 0 else 0.0
    return math.exp(entropy)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_equal_directions_are_counted(rank: int) -> None:
    """Points at the ends of so many orthogonal axes, far from the origin."""
    axes = torch.linalg.qr(torch.randn(8, 8, generator=random(0))).Q[:rank]
    assert effective_rank(torch.cat([axes, -axes]) + 5) == pytest.approx(rank, rel=1e-5)


def test_unequal_directions_count_by_their_share() -> None:
    """Shares 3/4 and 1/4: exp of -(3/4 log 3/4 + 1/4 log 1/4)."""
    features = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(features) == pytest.approx(4 / 3**0.75, rel=1e-6)


def test_equals_the_literal_version() -> None:
    features = torch.randn(50, 12, generator=random(1)) @ torch.randn(12, 12, generator=random(2))
    features = features + 10
    assert effective_rank(features) == pytest.approx(literal_rank(features), rel=1e-6)
    assert 1 < effective_rank(features) < 12


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_features_that_are_all_alike_have_rank_one(noise: float) -> None:
    """What float32 rounds differently spreads over all directions, and must not count."""
    alike = torch.randn(1, 12, generator=random(3)).expand(50, 12)
    features = alike + noise * torch.randn(50, 12, generator=random(4))
    assert effective_rank(features) == pytest.approx(1.0, abs=1e-9)
