"""How good frozen features are: neighbours, a logistic classifier, and heads trained on them."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from unmask.data.labelled import TEST_SHARE, draw_share
from unmask.evaluation.features import Features, Tokens
from unmask.evaluation.probes import ATTENTIVE, LINEAR, probe_classes
from unmask.tasks.logistic import best_strength, logistic_classes
from unmask.tasks.neighbors import NEIGHBORS, TEMPERATURE, knn_classes

Frozen = Literal["knn", "logistic", "linear", "attentive"]
"""Protocols on frozen features; the last two train a head, whose start is drawn."""

FROZEN: tuple[str, ...] = get_args(Frozen)

Control = Literal["none", "random", "scratch", "both"]
"""What is scored beside the encoder.

random: an encoder of the same shape with drawn weights, treated exactly alike; what is frozen stays random.
scratch: all blocks trained from drawn weights, for as many steps, the same rate in all layers.
"""

CPU = torch.device("cpu")

PRETRAINED, RANDOM, SCRATCH = "pretrained", "random initialisation", "from scratch"


class Score(NamedTuple):
    """Accuracy of one protocol on one feature."""

    protocol: Frozen
    feature: str
    accuracy: float
    setting: str


class Row(NamedTuple):
    """The scores of one arm, over all draws."""

    arm: str
    protocol: str
    feature: str
    """What was looked at: cls, mean or patches; or how many blocks were trained."""
    labels: str
    accuracies: list[float]
    setting: str
    seconds: float
    """Of scoring, or training, all draws; without the features."""
    images_per_second: float
    """Through the encoder; of kept features, when they were computed."""
    source: Literal["computed", "kept", "trained"]
    """Whether features were computed now, or read from disk; or the encoder ran in training."""

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Standard deviation over the draws; 0 for one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def evaluate(
    train: Features | Tokens,
    test: Features | Tokens,
    protocol: Frozen,
    classes: int,
    *,
    seed: int = 0,
    device: torch.device = CPU,
) -> list[Score]:
    """The protocol's accuracy on class tokens and on mean patch tokens.

    `linear` looks at class tokens alone, as in the paper, and `attentive` at all tokens; the seed draws
    their heads and the order of their images. Heads are trained on `device`.
    """
    if isinstance(train, Tokens) or isinstance(test, Tokens):
        assert isinstance(train, Tokens)
        assert isinstance(test, Tokens)
        assert protocol == "attentive"
        about = (train.tokens, train.labels, test.tokens, classes, seed, device)
        guesses = probe_classes(ATTENTIVE, *about)
        words = ATTENTIVE.words(len(train.labels))
        return [_score(protocol, "patches", guesses, test.labels, words)]
    if protocol == "linear":
        tokens, asked = train.cls[:, None], test.cls[:, None]
        guesses = probe_classes(LINEAR, tokens, train.labels, asked, classes, seed, device)
        words = LINEAR.words(len(train.labels))
        return [_score(protocol, "cls", guesses, test.labels, words)]
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
        scores.append(_score(protocol, name, guesses, test.labels, setting))
    return scores


def _score(protocol: Frozen, feature: str, guesses: Tensor, truth: Tensor, setting: str) -> Score:
    accuracy = (guesses == truth).double().mean().item()
    return Score(protocol, feature, accuracy, setting)
