"""A logistic classifier on frozen features, by scikit-learn."""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse regularisation to choose from."""


def logistic_classes(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    test: Float[Tensor, "b d"],
    strength: float,
) -> Int[Tensor, "b"]:
    """Guesses for test features; every feature is first scaled to mean 0 and deviation 1 on train.

    It takes as many threads as torch does: more than there are free cores cost far more than they bring.
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
        return torch.from_numpy(model.predict(test.numpy()))


def best_strength(
    train: Float[Tensor, "n d"], labels: Int[Tensor, "n"], held_out: NDArray[np.bool_]
) -> float:
    """The strength that scores best on held-out training features; nothing else is looked at."""
    asked = torch.from_numpy(held_out)
    known, truth = ~asked, labels[asked]
    scores = [
        (logistic_classes(train[known], labels[known], train[asked], c) == truth).double().mean()
        for c in STRENGTHS
    ]
    return STRENGTHS[int(torch.stack(scores).argmax())]
