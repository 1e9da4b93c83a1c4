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


def knn_classes(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    test: Float[Tensor, "b d"],
    classes: int,
    neighbors: int = NEIGHBORS,
    temperature: float = TEMPERATURE,
) -> Int[Tensor, "b"]:
    """The class that the nearest training features vote for; fewer than k vote where there are fewer."""
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    guesses = [
        _voted(part @ train.T, labels, classes, neighbors, temperature)
        for part in test.split(_CHUNK)
    ]
    return torch.cat(guesses)


def knn_classes_of_others(
    features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], classes: int, neighbors: int
) -> Int[Tensor, "n"]:
    """The class that the nearest of the other features vote for (leave one out)."""
    features = F.normalize(features, dim=1)
    similarity = (features @ features.T).fill_diagonal_(-torch.inf)  # whose vote weighs nothing
    return _voted(similarity, labels, classes, neighbors, TEMPERATURE)


def _voted(
    similarity: Float[Tensor, "b n"],
    labels: Int[Tensor, "n"],
    classes: int,
    neighbors: int,
    temperature: float,
) -> Int[Tensor, "b"]:
    nearest, place = similarity.topk(min(neighbors, similarity.shape[1]), dim=1)
    votes = torch.zeros(len(similarity), classes)
    votes.scatter_add_(1, labels[place], (nearest / temperature).exp())
    return votes.argmax(1)
