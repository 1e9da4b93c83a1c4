"""Scoring frozen features: k-NN, logistic regression, and heads trained on them."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from unmask.annotations import AnyAnnotations
from unmask.data.labelled import TEST_SHARE, draw_share
from unmask.evaluation.features import Features, Tokens
from unmask.evaluation.probes import ATTENTIVE, LINEAR, Probe, probe_scores
from unmask.tasks import Classify, task_for
from unmask.tasks.logistic import best_strength, logistic_scores
from unmask.tasks.neighbors import NEIGHBORS, TEMPERATURE, knn_votes
from unmask.tasks.task import Score

Frozen = Literal["knn", "logistic", "linear", "attentive"]
"""Protocols on frozen features; the last two train a head, initialised from a seed."""

FROZEN: tuple[str, ...] = get_args(Frozen)

Control = Literal["none", "random", "scratch", "both"]
"""Baselines to score in addition to the encoder.

random: the same encoder with random weights, evaluated in the same way; frozen parts stay random.
scratch: all blocks trained from random weights for the same number of steps, with the same learning rate in all layers.
"""

CPU = torch.device("cpu")

PRETRAINED, RANDOM, SCRATCH = "pretrained", "random initialisation", "from scratch"


class FrozenScore(NamedTuple):
    """The score of one protocol on one feature."""

    protocol: Frozen
    feature: str
    score: Score
    setting: str


class Row(NamedTuple):
    """The scores of one encoder, over all draws of labels and heads."""

    arm: str
    protocol: str
    feature: str
    """The features: cls, mean or patches; or the number of trained blocks."""
    labels: str
    scores: list[Score]
    setting: str
    seconds: float
    """Time of scoring, or of training, over all draws; without computing features."""
    images_per_second: float
    """Speed of the encoder; for cached features, when they were computed."""
    source: Literal["computed", "kept", "trained"]
    """Whether features were computed now or read from disk, or the encoder was trained."""

    @property
    def values(self) -> list[float]:
        """The task's metric for each draw."""
        return [score.value for score in self.scores]

    @property
    def mean(self) -> float:
        """The mean over the draws."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """The standard deviation over the draws; 0 for a single draw."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def evaluate(
    train: Features | Tokens,
    test: Features | Tokens,
    protocol: Frozen,
    annotations: AnyAnnotations,
    *,
    seed: int = 0,
    device: torch.device = CPU,
) -> list[FrozenScore]:
    """The protocol's score on class tokens and on mean patch tokens, for the task of these annotations.

    `linear` uses only class tokens, as in the paper, and `attentive` all tokens. The seed initialises their heads and
    orders their images. Heads are trained on `device`.
    """
    task, classes = task_for(Classify(), annotations), len(annotations.names)

    def score_of(scores: Tensor, truth: Tensor) -> Score:
        scoring = task.scoring(annotations)
        scoring.add(scores, truth)
        return scoring.result()

    if protocol in ("linear", "attentive"):
        probe, feature, train_tokens, test_tokens = _tokens_for(protocol, train, test)
        scores = probe_scores(probe, train_tokens, train.labels, test_tokens, classes, seed, device)
        words = probe.words(len(train.labels))
        return [FrozenScore(protocol, feature, score_of(scores, test.labels), words)]
    assert isinstance(train, Features)
    assert isinstance(test, Features)
    rows: list[FrozenScore] = []
    pairs = (("cls", train.cls, test.cls), ("mean", train.mean, test.mean))
    for name, train_features, test_features in pairs:
        if protocol == "knn":
            scores = knn_votes(train_features, train.labels, test_features, classes)
            setting = f"cosine, k = {NEIGHBORS}, temperature {TEMPERATURE}"
        else:
            held_out = draw_share(train.labels.long().numpy(), TEST_SHARE, 0)
            strength = 1.0
            if held_out.any():
                strength = best_strength(
                    train_features,
                    train.labels,
                    held_out,
                    lambda s, t: score_of(s, t).value,
                    classes,
                )
            scores = logistic_scores(train_features, train.labels, test_features, strength, classes)
            setting = f"C = {strength:g}, chosen on a fifth of train"
        rows.append(FrozenScore(protocol, name, score_of(scores, test.labels), setting))
    return rows


def _tokens_for(
    protocol: Frozen, train: Features | Tokens, test: Features | Tokens
) -> tuple[Probe, str, Tensor, Tensor]:
    """The probe of a protocol, the name of its features, and the tokens for training and test."""
    if protocol == "attentive":
        assert isinstance(train, Tokens)
        assert isinstance(test, Tokens)
        return ATTENTIVE, "patches", train.tokens, test.tokens
    assert isinstance(train, Features)
    assert isinstance(test, Features)
    return LINEAR, "cls", train.cls[:, None], test.cls[:, None]
