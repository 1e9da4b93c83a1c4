"""Weighted nearest neighbours on frozen features (Wu and others, 2018; the protocol of DINO).

Features are compared by cosine; each of the k nearest votes with exp(similarity / temperature).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

NEIGHBORS = 20
TEMPERATURE = 0.07
_CHUNK = 1024
_CERTAIN = 1e-6  # the least and most share that has finite odds


def knn_votes(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n classes"],
    test: Float[Tensor, "b d"],
    classes: int,
    neighbors: int = NEIGHBORS,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "b classes"]:
    """The votes of the nearest training features for each class; fewer than k vote where there are fewer.

    `labels` are one class of each training image, or 0 or 1 for each class of it; in the second case the votes are
    the log-odds of the share of the neighbours, by weight, that belong to the class, as of any score of several classes.
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    votes = [
        _votes(part @ train.T, labels, classes, neighbors, temperature)
        for part in test.split(_CHUNK)
    ]
    return torch.cat(votes)


def knn_classes(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    test: Float[Tensor, "b d"],
    classes: int,
    neighbors: int = NEIGHBORS,
    temperature: float = TEMPERATURE,
) -> Int[Tensor, "b"]:
    """The class that the nearest training features vote for."""
    return knn_votes(train, labels, test, classes, neighbors, temperature).argmax(1)


def knn_classes_of_others(
    features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], classes: int, neighbors: int
) -> Int[Tensor, "n"]:
    """The class that the nearest of the other features vote for (leave one out)."""
    features = F.normalize(features, dim=1)
    similarity = (features @ features.T).fill_diagonal_(-torch.inf)  # whose vote weighs nothing
    return _votes(similarity, labels, classes, neighbors, TEMPERATURE).argmax(1)


def _votes(
    similarity: Float[Tensor, "b n"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n classes"],
    classes: int,
    neighbors: int,
    temperature: float,
) -> Float[Tensor, "b classes"]:
    nearest, place = similarity.topk(min(neighbors, similarity.shape[1]), dim=1)
    weights = (nearest / temperature).exp()  # [b k]
    if labels.ndim == 2:
        shares = torch.einsum("bk,bkc->bc", weights / weights.sum(1, keepdim=True), labels[place])
        return shares.logit(eps=_CERTAIN)
    votes = torch.zeros(len(similarity), classes)
    return votes.scatter_add_(1, labels[place], weights)
