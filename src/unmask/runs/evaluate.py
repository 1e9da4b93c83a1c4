"""How good frozen features are: neighbours, a logistic classifier, and heads trained on them."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unmask.contracts import ChannelStatistics, Encoder, Size
from unmask.runs.features import Features, features, patch_tokens
from unmask.runs.labelled import TEST_SHARE, Labelled, draw_share
from unmask.runs.probes import ATTENTIVE, LINEAR, probe_classes
from unmask.tasks.logistic import best_strength, logistic_classes
from unmask.tasks.neighbors import NEIGHBORS, TEMPERATURE, knn_classes

Frozen = Literal["knn", "logistic", "linear", "attentive"]
"""Protocols on frozen features; the last two train a head, whose start is drawn."""


class Score(NamedTuple):
    """Accuracy of one protocol on one feature."""

    protocol: Frozen
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


def labelled_tokens(
    encoder: Encoder,
    labelled: Labelled,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """All tokens of the images to learn from and to test on, for `attentive`."""
    train = patch_tokens(encoder, labelled.train, size, statistics, device)
    return train, patch_tokens(encoder, labelled.test, size, statistics, device)


def evaluate(
    train: Features,
    test: Features,
    protocol: Frozen,
    classes: int,
    *,
    tokens: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> list[Score]:
    """The protocol's accuracy on class tokens and on mean patch tokens.

    `linear` looks at class tokens alone, as in the paper, and `attentive` at `tokens`, all of them; the
    seed draws their heads and the order of their images.
    """
    if protocol == "linear":
        guesses = probe_classes(
            LINEAR, train.cls[:, None], train.labels, test.cls[:, None], classes, seed
        )
        return [_score(protocol, "cls", guesses, test, LINEAR.words(len(train.labels)))]
    if protocol == "attentive":
        assert tokens is not None
        guesses = probe_classes(ATTENTIVE, tokens[0], train.labels, tokens[1], classes, seed)
        return [_score(protocol, "patches", guesses, test, ATTENTIVE.words(len(train.labels)))]
    scores: list[Score] = []
    for name, known, asked in (("cls", train.cls, test.cls), ("mean", train.mean, test.mean)):
        if protocol == "knn":
            guesses = knn_classes(known, train.labels, asked, classes)
            setting = f"cosine, k = {NEIGHBORS}, temperature {TEMPERATURE}"
        else:
            held_out = draw_share(train.labels.numpy(), TEST_SHARE, 0)
            some = bool(held_out.any())
            strength = best_strength(known, train.labels, held_out) if some else 1.0
            guesses = logistic_classes(known, train.labels, asked, strength)
            setting = f"C = {strength:g}, chosen on a fifth of train"
        scores.append(_score(protocol, name, guesses, test, setting))
    return scores


def _score(protocol: Frozen, feature: str, guesses: Tensor, test: Features, setting: str) -> Score:
    accuracy = (guesses == test.labels).double().mean().item()
    return Score(protocol, feature, accuracy, setting)
