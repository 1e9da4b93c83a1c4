"""How good frozen features are: nearest neighbours and a logistic classifier on labelled images."""

from typing import Literal, NamedTuple

import torch

from unmask.contracts import ChannelStatistics, Encoder, Size
from unmask.runs.features import Features, features
from unmask.runs.labelled import TEST_SHARE, Labelled, draw_share
from unmask.tasks.logistic import best_strength, logistic_classes
from unmask.tasks.neighbors import NEIGHBORS, TEMPERATURE, knn_classes

Protocol = Literal["knn", "logistic"]


class Score(NamedTuple):
    """Accuracy of one protocol on one feature."""

    protocol: Protocol
    feature: str
    accuracy: float
    setting: str


def labelled_features(
    encoder: Encoder,
    labelled: Labelled,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
) -> tuple[Features, Features]:
    """Features to learn from and features to test on."""
    train = features(encoder, labelled.train, size, statistics, device)
    return train, features(encoder, labelled.test, size, statistics, device)


def evaluate(train: Features, test: Features, protocol: Protocol, classes: int) -> list[Score]:
    """The protocol's accuracy on class tokens and on mean patch tokens."""
    tokens = {"cls": (train.cls, test.cls), "mean": (train.mean, test.mean)}
    scores: list[Score] = []
    for name, (known, asked) in tokens.items():
        if protocol == "knn":
            guesses = knn_classes(known, train.labels, asked, classes)
            setting = f"cosine, k = {NEIGHBORS}, temperature {TEMPERATURE}"
        else:
            held_out = draw_share(train.labels.numpy(), TEST_SHARE, 0)
            some = bool(held_out.any())
            strength = best_strength(known, train.labels, held_out) if some else 1.0
            guesses = logistic_classes(known, train.labels, asked, strength)
            setting = f"C = {strength:g}, chosen on a fifth of train"
        accuracy = (guesses == test.labels).double().mean().item()
        scores.append(Score(protocol, name, accuracy, setting))
    return scores
