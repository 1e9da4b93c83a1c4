"""Measures of frozen features that need no training: weighted k-nearest neighbours, and the effective rank.

Of the neighbours (Wu and others, 2018; DINO's protocol), each of the k features with the highest cosine similarity votes
with weight exp(similarity / temperature).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

NEIGHBORS = 20
TEMPERATURE = 0.07
_CHUNK = 1024  # test features compared at a time, to limit memory
_CERTAIN = 1e-6  # shares are clamped to this and 1 minus this, so that log-odds are finite
_ALIKE = 1e-5  # smallest singular value that counts, as a share of the features' norm


def knn_votes(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"],
    test: Float[Tensor, "b d"],
    classes: int,
    neighbors: int = NEIGHBORS,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "b classes"]:
    """The votes of the k nearest training features (or of all, if there are fewer) for each class.

    `labels` is the class of each training image, or 0 or 1 for each class. In the second case the votes are the log-odds
    of the weighted share of neighbours that belong to the class, like the scores of a multi-label classifier.
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    votes = [
        _votes(part @ train.T, labels, classes, neighbors, temperature)
        for part in test.split(_CHUNK)
    ]
    return torch.cat(votes)


def knn_classes_of_others(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int, neighbors: int
) -> Int[Tensor, " n"]:
    """The class with the most votes of the nearest other features (leave one out)."""
    features = F.normalize(features, dim=1)
    similarity = (features @ features.T).fill_diagonal_(-torch.inf)  # its vote has weight 0
    return _votes(similarity, labels, classes, neighbors, TEMPERATURE).argmax(1)


def _votes(
    similarity: Float[Tensor, "b n"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"],
    classes: int,
    neighbors: int,
    temperature: float,
) -> Float[Tensor, "b classes"]:
    nearest, index = similarity.topk(min(neighbors, similarity.shape[1]), dim=1)
    weights = (nearest / temperature).exp()  # [b k]
    if labels.ndim == 2:
        shares = torch.einsum("bk,bkc->bc", weights / weights.sum(1, keepdim=True), labels[index])
        return shares.logit(eps=_CERTAIN)
    votes = torch.zeros(len(similarity), classes)
    return votes.scatter_add_(1, labels[index], weights)


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp(entropy) of the singular values as shares of their sum (Roy and Vetterli, "The Effective Rank", 2007).

    The result is between 1 and min(n - 1, d). Features are centred first, because their mean does not distinguish
    images; identical features have rank 1. Garrido and others (RankMe, 2023) use the same number, without centring, to
    evaluate encoders without labels.
    """
    exact = features.double()
    values = torch.linalg.svdvals(exact - exact.mean(0))
    values = values[values > _ALIKE * exact.norm()]  # others are float32 rounding errors
    shares = values / values.sum()
    return float((-(shares * shares.log()).sum()).exp())
