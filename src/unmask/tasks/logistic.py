"""A logistic classifier on frozen features, by scikit-learn."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse regularisation to choose from."""


def logistic_scores(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n classes"],
    test: Float[Tensor, "b d"],
    strength: float,
    classes: int,
) -> Float[Tensor, "b classes"]:
    """Probabilities of the classes of test features; every feature is scaled to mean 0 and deviation 1 on train.

    `labels` are one class of each training image, or 0 or 1 for each class of it: then every class has a
    classifier of its own. A class that no training image has, or that all have, gets the same score everywhere.
    """
    if labels.ndim == 2:
        columns = [_positive(train, column.long(), test, strength) for column in labels.T]
        return torch.stack(columns, 1)
    known, shares = _fitted(train, labels, test, strength)
    scores = torch.zeros(len(test), classes)
    scores[:, torch.from_numpy(known).long()] = torch.from_numpy(shares).float()
    return scores


def logistic_classes(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    test: Float[Tensor, "b d"],
    strength: float,
) -> Int[Tensor, "b"]:
    """The likeliest class of test features."""
    known, shares = _fitted(train, labels, test, strength)
    return torch.from_numpy(known[shares.argmax(1)])


def best_strength(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n classes"],
    held_out: NDArray[np.bool_],
    score: Callable[[Float[Tensor, "b classes"], Tensor], float],
    classes: int,
) -> float:
    """The strength that scores best on held-out training features; nothing else is looked at.

    `score` takes the scores of classes and the true labels.
    """
    asked = torch.from_numpy(held_out)
    known, truth = ~asked, labels[asked]
    scores = [
        score(logistic_scores(train[known], labels[known], train[asked], c, classes), truth)
        for c in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(scores))]


def _fitted(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    test: Float[Tensor, "b d"],
    strength: float,
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    """The classes that training images have, and their probabilities for test features.

    It takes as many threads as torch does: more threads than there are free cores spin against one another.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps are the protocol
        model.fit(train.numpy(), labels.numpy())
        return model.classes_, model.predict_proba(test.numpy())


def _positive(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    test: Float[Tensor, "b d"],
    strength: float,
) -> Float[Tensor, "b"]:
    """The probability that test features belong to a class."""
    if len(labels.unique()) < 2:
        return labels[:1].float().expand(len(test))
    _, shares = _fitted(train, labels, test, strength)
    return torch.from_numpy(shares[:, 1]).float()
