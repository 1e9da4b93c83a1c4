"""How good frozen features are: neighbours, a logistic classifier, and heads trained on them."""

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
"""Protocols on frozen features; the last two train a head, whose start is drawn."""

FROZEN: tuple[str, ...] = get_args(Frozen)

Control = Literal["none", "random", "scratch", "both"]
"""What is scored beside the encoder.

random: an encoder of the same shape with drawn weights, treated exactly alike; what is frozen stays random.
scratch: all blocks trained from drawn weights, for as many steps, the same rate in all layers.
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
    """The scores of one arm, over all draws."""

    arm: str
    protocol: str
    feature: str
    """What was looked at: cls, mean or patches; or how many blocks were trained."""
    labels: str
    scores: list[Score]
    setting: str
    seconds: float
    """Of scoring, or training, all draws; without the features."""
    images_per_second: float
    """Through the encoder; of kept features, when they were computed."""
    source: Literal["computed", "kept", "trained"]
    """Whether features were computed now, or read from disk; or the encoder ran in training."""

    @property
    def values(self) -> list[float]:
        """The task's measure, of each draw."""
        return [score.value for score in self.scores]

    @property
    def mean(self) -> float:
        """The mean over the draws."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """The standard deviation over the draws; 0 for one."""
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
    """The protocol's score on class tokens and on mean patch tokens, by the task that the annotations call for.

    `linear` looks at class tokens alone, as in the paper, and `attentive` at all tokens; the seed draws
    their heads and the order of their images. Heads are trained on `device`.
    """
    task, classes = task_for(Classify(), annotations), len(annotations.names)

    def scored(scores: Tensor, truth: Tensor) -> Score:
        scoring = task.scoring(annotations)
        scoring.add(scores, truth)
        return scoring.result()

    if protocol in ("linear", "attentive"):
        probe, feature, known, asked = _tokens_for(protocol, train, test)
        scores = probe_scores(probe, known, train.labels, asked, classes, seed, device)
        words = probe.words(len(train.labels))
        return [FrozenScore(protocol, feature, scored(scores, test.labels), words)]
    assert isinstance(train, Features)
    assert isinstance(test, Features)
    rows: list[FrozenScore] = []
    for name, known, asked in (("cls", train.cls, test.cls), ("mean", train.mean, test.mean)):
        if protocol == "knn":
            scores = knn_votes(known, train.labels, asked, classes)
            setting = f"cosine, k = {NEIGHBORS}, temperature {TEMPERATURE}"
        else:
            held_out = draw_share(train.labels.long().numpy(), TEST_SHARE, 0)
            strength = 1.0
            if held_out.any():
                strength = best_strength(
                    known, train.labels, held_out, lambda s, t: scored(s, t).value, classes
                )
            scores = logistic_scores(known, train.labels, asked, strength, classes)
            setting = f"C = {strength:g}, chosen on a fifth of train"
        rows.append(FrozenScore(protocol, name, scored(scores, test.labels), setting))
    return rows


def _tokens_for(
    protocol: Frozen, train: Features | Tokens, test: Features | Tokens
) -> tuple[Probe, str, Tensor, Tensor]:
    """The probe of a protocol, what it looks at, and the tokens to learn from and to test on."""
    if protocol == "attentive":
        assert isinstance(train, Tokens)
        assert isinstance(test, Tokens)
        return ATTENTIVE, "patches", train.tokens, test.tokens
    assert isinstance(train, Features)
    assert isinstance(test, Features)
    return LINEAR, "cls", train.cls[:, None], test.cls[:, None]
