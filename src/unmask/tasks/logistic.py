"""Logistic regression on frozen features, by scikit-learn."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Candidates for scikit-learn's C, the inverse of the regularisation strength."""


def logistic_scores(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"],
    test: Float[Tensor, "b d"],
    strength: float,
    classes: int,
) -> Float[Tensor, "b classes"]:
    """Class probabilities of test features; features are standardised with the training mean and deviation.

    `labels` is the class of each training image, or 0 or 1 for each class. In the second case each class has its own
    classifier, and a class that no training image has, or all have, gets the same score for every image.
    """
    if labels.ndim == 2:
        columns = [_positive(train, column.long(), test, strength) for column in labels.T]
        return torch.stack(columns, 1)
    present, probabilities = _fitted(train, labels, test, strength)
    scores = torch.zeros(len(test), classes)
    scores[:, torch.from_numpy(present).long()] = torch.from_numpy(probabilities).float()
    return scores


def logistic_classes(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "b d"],
    strength: float,
) -> Int[Tensor, " b"]:
    """The most likely class of test features."""
    present, probabilities = _fitted(train, labels, test, strength)
    return torch.from_numpy(present[probabilities.argmax(1)])


def best_strength(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"],
    held_out: NDArray[np.bool_],
    score: Callable[[Float[Tensor, "b classes"], Tensor], float],
    classes: int,
) -> float:
    """The strength that scores best on held-out training features.

    `score` takes class scores and true labels.
    """
    validation = torch.from_numpy(held_out)
    fitting, truth = ~validation, labels[validation]
    scores = [
        score(
            logistic_scores(train[fitting], labels[fitting], train[validation], c, classes), truth
        )
        for c in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(scores))]


def _fitted(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "b d"],
    strength: float,
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    """The classes of the training images, and their probabilities for test features.

    BLAS gets as many threads as torch: more threads than free cores would only wait for one another.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol is 300 iterations
        model.fit(train.numpy(), labels.numpy())
        return model.classes_, model.predict_proba(test.numpy())


def _positive(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "b d"],
    strength: float,
) -> Float[Tensor, " b"]:
    """The probability that test features belong to a class, from its binary classifier."""
    if len(labels.unique()) < 2:
        return labels[:1].float().expand(len(test))
    _, probabilities = _fitted(train, labels, test, strength)
    return torch.from_numpy(probabilities[:, 1]).float()
