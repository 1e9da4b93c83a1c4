"""Classifiers of patches: nearest neighbours that vote at each pixel, and logistic regression."""

import warnings
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Distance = Literal["cosine", "L2"]

_MOST_SIMILARITIES = 2**25  # at a time: 128 MiB
_MOST_VOTES = 2**25


def nearest(
    train: Float[Tensor, "n d"], test: Float[Tensor, "m d"], count: int, distance: Distance
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """Similarities and indices of the nearest training vectors, the nearest first; of all, if there are fewer.

    The similarity is the cosine, or minus half the squared distance plus what is the same for all training vectors.
    """
    if distance == "cosine":
        train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
        shift = train.new_zeros(len(train))
    else:
        shift = train.square().sum(1) / 2
    parts = [
        (part @ train.T - shift).topk(min(count, len(train)), dim=1)
        for part in test.split(max(1, _MOST_SIMILARITIES // len(train)))
    ]
    similarities, indices = zip(*parts, strict=True)
    return torch.cat(similarities), torch.cat(indices)


def pixel_votes(
    neighbors: Int[Tensor, "m k"], labels: Int[Tensor, "n pixels"], classes: int
) -> Int[Tensor, "m pixels"]:
    """The class with the most votes at each pixel: a neighbour votes with the class of its own pixel at that place.

    Ignored pixels (-1) have no vote; of equal votes, and without any, the first class wins.
    """
    pixels = labels.shape[1]
    found: list[Tensor] = []
    for part in neighbors.split(max(1, _MOST_VOTES // (pixels * classes))):
        votes = torch.zeros(len(part), pixels, classes + 1, dtype=torch.int16)
        one = torch.ones(len(part), pixels, 1, dtype=torch.int16)
        for column in part.T:
            said = labels[column].long()[:, :, None]
            votes.scatter_add_(2, said.masked_fill(said < 0, classes), one)
        found.append(votes[:, :, :classes].argmax(2))
    return torch.cat(found)


def weighted_votes(
    similarities: Float[Tensor, "m k"],
    neighbors: Int[Tensor, "m k"],
    labels: Int[Tensor, " n"],
    classes: int,
    temperature: float,
) -> Float[Tensor, "m classes"]:
    """The share of each class in the votes of the neighbours, each with weight exp(similarity / temperature)."""
    weights = (similarities / temperature).softmax(1)
    votes = torch.zeros(len(neighbors), classes)
    return votes.scatter_add_(1, labels[neighbors].long(), weights)


def commonest(labels: Int[Tensor, "n pixels"], classes: int) -> Int[Tensor, " n"]:
    """The most frequent class of the pixels of each patch; -1 if as many are ignored (-1) as belong to any class.

    Of equally frequent classes the lowest number.
    """
    found = [
        F.one_hot(part.long() + 1, classes + 1).sum(1).argmax(1) - 1
        for part in labels.split(max(1, _MOST_VOTES // (labels.shape[1] * (classes + 1))))
    ]
    return torch.cat(found)


class Logistic:
    """Multinomial logistic regression by scikit-learn's L-BFGS."""

    def __init__(
        self,
        train: Float[Tensor, "n d"],
        labels: Int[Tensor, " n"],
        strength: float,
        iterations: int,
    ) -> None:
        """Fit; `strength` is scikit-learn's C, the inverse of the regularisation strength."""
        self.model = None
        self.present = labels.unique().long()
        if len(self.present) == 1:  # nothing to tell apart; scikit-learn refuses it
            return
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        self.model = LogisticRegression(C=strength, max_iter=iterations)
        with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol limits iterations
            self.model.fit(train.numpy(), labels.numpy())

    def probabilities(self, test: Float[Tensor, "m d"], classes: int) -> Float[Tensor, "m classes"]:
        """The probability of each class; 0 for those that no training vector has."""
        scores = torch.zeros(len(test), classes)
        if self.model is None:
            scores[:, self.present] = 1
            return scores
        scores[:, self.present] = torch.from_numpy(self.model.predict_proba(test.numpy())).float()
        return scores
