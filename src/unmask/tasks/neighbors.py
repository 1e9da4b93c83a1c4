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
    guesses: list[Tensor] = []
    for part in test.split(_CHUNK):
        similarity, nearest = (part @ train.T).topk(min(neighbors, len(train)), dim=1)
        votes = torch.zeros(len(part), classes)
        votes.scatter_add_(1, labels[nearest], (similarity / temperature).exp())
        guesses.append(votes.argmax(1))
    return torch.cat(guesses)
