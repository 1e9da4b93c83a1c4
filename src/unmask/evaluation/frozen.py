"""Scoring frozen features: k-NN, logistic regression, and heads trained on tokens that are computed once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.annotations import Annotations, AnyAnnotations
from unmask.contracts import Batch, Loss
from unmask.data.draws import draw_share
from unmask.data.labelled import TEST_SHARE
from unmask.data.order import samples
from unmask.evaluation.features import Features, Tokens, Vectors
from unmask.randomness import seeded
from unmask.tasks import Classify, task_for
from unmask.tasks.heads import AnyHead, AttentiveHead, TokenProbe
from unmask.tasks.logistic import best_strength, logistic_scores
from unmask.tasks.neighbors import NEIGHBORS, TEMPERATURE, knn_votes
from unmask.tasks.task import Score, Scoring
from unmask.training.hardware import memory_available
from unmask.training.loop import Planned, train
from unmask.training.optimizers import AdamW, AnyOptimizer, Lars
from unmask.training.schedules import WarmupCosine, fitting_batch, steps_of

_USABLE = 0.5  # share of a device's free memory that inputs may fill

Frozen = Literal["knn", "logistic", "linear", "attentive"]
"""Protocols on frozen features; the last two train a head, initialised from a seed."""

FROZEN: tuple[str, ...] = get_args(Frozen)

Control = Literal["auto", "none", "random", "scratch", "both"]
"""Baselines to score in addition to the encoder.

auto: beside frozen features, random weights and raw pixels, which cost little; beside trained protocols, nothing.
none: the encoder alone.
random: the same encoder with random weights, evaluated in the same way; frozen parts stay random.
scratch: all blocks trained from random weights for the same number of steps, with the same learning rate in all layers.
"""

CPU = torch.device("cpu")

PRETRAINED, RANDOM, SCRATCH = "pretrained", "random initialisation", "from scratch"
RAW = "raw pixels"
PLAIN = "plain"


class FrozenScore(NamedTuple):
    """The score of one protocol on one feature."""

    feature: str
    score: Score
    setting: str
    right: NDArray[np.bool_] | None
    """As in `Row`, for one draw."""


class Row(NamedTuple):
    """The scores of one encoder, over all draws of labels and heads."""

    arm: str
    protocol: str
    feature: str
    """The features: cls, mean, gem, patches or pixels; or the number of trained blocks."""
    labels: str
    scores: list[Score]
    setting: str
    seconds: float
    """Time of scoring, or of training, over all draws; without computing features."""
    images_per_second: float
    """Speed of the encoder; for cached features, when they were computed."""
    source: Literal["computed", "kept", "trained"]
    """Whether features were computed now or read from disk, or the encoder was trained."""
    vectors: str = PLAIN
    """How vectors are centred and whitened, in words; `plain` if they are not."""
    right: tuple[NDArray[np.bool_], ...] = ()
    """For each draw, whether the answer for each readable test image is right [n]; empty for several classes an image."""

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
    train: Features | Tokens | Vectors,
    test: Features | Tokens | Vectors,
    protocol: Frozen,
    annotations: AnyAnnotations,
    *,
    seed: int = 0,
    device: torch.device = CPU,
) -> list[FrozenScore]:
    """The protocol's score on class tokens, on mean patch tokens or on other vectors, for the task of these annotations.

    Of `Features`, `linear` uses only class tokens, as in the paper; `attentive` needs all tokens. The seed initialises
    their heads and orders their images. Heads are trained on `device`.
    """
    assert isinstance(train, Tokens) == (protocol == "attentive")
    if protocol in PROBES:
        probe, feature = PROBES[protocol]
        if isinstance(train, Vectors):
            feature = train.feature
        scores = probe_scores(
            probe,
            _tokens(train),
            train.labels,
            _tokens(test),
            len(annotations.names),
            seed,
            device,
        )
        words = probe.words(len(train.labels))
        return [_frozen_score(feature, scores, test.labels, annotations, words)]
    rows: list[FrozenScore] = []
    for name, train_vectors, test_vectors in _vectors(train, test):
        if protocol == "knn":
            scores = knn_votes(train_vectors, train.labels, test_vectors, len(annotations.names))
            setting = f"cosine, k = {NEIGHBORS}, temperature {TEMPERATURE}"
        else:
            scores, setting = _logistic(train_vectors, train.labels, test_vectors, annotations)
        rows.append(_frozen_score(name, scores, test.labels, annotations, setting))
    return rows


def _frozen_score(
    feature: str, scores: Tensor, truth: Tensor, annotations: AnyAnnotations, setting: str
) -> FrozenScore:
    return FrozenScore(
        feature, _score(scores, truth, annotations), setting, right_answers(scores, truth)
    )


def right_answers(
    scores: Float[Tensor, "n classes"], truth: Annotations
) -> NDArray[np.bool_] | None:
    """Whether the class with the highest score is the true one [n]; None if an image has no single class."""
    if not isinstance(truth, Tensor) or truth.ndim != 1:
        return None
    return (scores.argmax(1) == truth).numpy()


def _score(scores: Tensor, truth: Tensor, annotations: AnyAnnotations) -> Score:
    """The score of the task of these annotations."""
    scoring: Scoring = task_for(Classify(), annotations).scoring(annotations)
    scoring.add(scores, truth)
    return scoring.result()


def _tokens(part: Features | Tokens | Vectors) -> Float[Tensor, "n t d"]:
    """What a probe sees: all tokens, or one vector as the class token."""
    if isinstance(part, Tokens):
        return part.tokens
    return (part.cls if isinstance(part, Features) else part.vectors)[:, None]


def _vectors(
    train: Features | Tokens | Vectors, test: Features | Tokens | Vectors
) -> list[tuple[str, Tensor, Tensor]]:
    """The vectors that are scored, with their names."""
    if isinstance(train, Vectors):
        assert isinstance(test, Vectors)
        return [(train.feature, train.vectors, test.vectors)]
    assert isinstance(train, Features)
    assert isinstance(test, Features)
    return [("cls", train.cls, test.cls), ("mean", train.mean, test.mean)]


def _logistic(
    train: Tensor, labels: Tensor, test: Tensor, annotations: AnyAnnotations
) -> tuple[Float[Tensor, "b classes"], str]:
    """Scores of logistic regression, and the strength that was chosen, in words."""
    classes = len(annotations.names)
    held_out = draw_share(labels.long().numpy(), TEST_SHARE, 0)
    strength = 1.0
    if held_out.any():
        strength = best_strength(
            train, labels, held_out, lambda s, t: _score(s, t, annotations).value, classes
        )
    scores = logistic_scores(train, labels, test, strength, classes)
    return scores, f"C = {strength:g}, chosen on a fifth of train"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How to train a head on frozen tokens."""

    head: AnyHead
    """The head."""

    optimizer: AnyOptimizer
    """The optimizer."""

    peak: float
    """Highest learning rate, for any batch size."""

    batch_size: int
    """Images per step, halved until an epoch has at least eight steps."""

    epochs: float
    """Number of epochs."""

    least_steps: int
    """Minimum number of steps, for small data."""

    def steps(self, images: int) -> tuple[int, int]:
        """Number of steps and batch size for a number of images."""
        batch_size = fitting_batch(self.batch_size, images)
        return max(self.least_steps, steps_of(self.epochs, images, batch_size)), batch_size

    def words(self, images: int) -> str:
        """The training on a number of images, in words."""
        steps, batch_size = self.steps(images)
        return f"{steps:,} steps of {batch_size:,}, rate {self.peak:g}, features not augmented"


LINEAR = Probe(
    head=TokenProbe(),  # appendix A.1
    optimizer=Lars(momentum=0.9, trust=0.001, weight_decay=0.0),  # table 10
    peak=6.4,  # table 10: 0.1 x 16384 / 256
    batch_size=16384,  # table 10
    epochs=90,  # table 10
    least_steps=1000,
)
"""The paper's linear probe, but on features computed once, so without its crops and flips. On small data the batch is
smaller, but the learning rate stays: if it were scaled with the batch, LARS would hardly change the weights."""

ATTENTIVE = Probe(
    head=AttentiveHead(),
    optimizer=AdamW(beta2=0.999, weight_decay=0.05),
    peak=2e-3,
    batch_size=1024,
    epochs=30,
    least_steps=1000,
)
"""AIM's attentive probe, on patch tokens computed once. The schedule is ours."""

PROBES = {"linear": (LINEAR, "cls"), "attentive": (ATTENTIVE, "patches")}
"""Protocols that train a head, and the name of the features that it sees."""


class _ProbeModule(nn.Module):
    """A head as a trainable for the loop; the batch has tokens in place of images."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.norm = head, nn.Identity()

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy, or binary cross-entropy for multi-label data; without randomness."""
        scores, truth = self.head(batch.images, self.norm), batch.annotations
        assert isinstance(truth, Tensor)
        if truth.ndim == 2:
            return Loss(F.binary_cross_entropy_with_logits(scores, truth.to(scores.dtype)), {})
        return Loss(F.cross_entropy(scores, truth), {})


def probe_scores(
    probe: Probe,
    train_tokens: Float[Tensor, "n t d"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"],
    test: Float[Tensor, "b t d"],
    classes: int,
    seed: int,
    device: torch.device,
) -> Float[Tensor, "b classes"]:
    """Class scores for test tokens; all tokens have the class token first and are normalised already.

    The seed initialises the head and orders the images. The head is trained on `device`; scores are on the test tokens'
    device.
    """
    with seeded("head", seed):
        probe_module = _ProbeModule(probe.head.build(train_tokens.shape[-1], classes)).to(device)
    steps, batch_size = probe.steps(len(labels))
    train_in_memory(
        probe_module,
        train_tokens,
        labels,
        probe.optimizer,
        peak=probe.peak,
        warmup_steps=steps / 9,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
    )
    with torch.inference_mode():
        probe_module.eval()
        parts = [probe_module.head(part.to(device), probe_module.norm) for part in test.split(1024)]
    return torch.cat(parts).to(test.device)


def train_in_memory(
    module: nn.Module,
    inputs: Shaped[Tensor, " n *shape"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"],
    optimizer: AnyOptimizer,
    *,
    peak: float,
    warmup_steps: float,
    steps: int,
    batch_size: int,
    seed: int,
) -> None:
    """Train a module on its device for a number of steps; the learning rate rises to `peak` and falls along a cosine.

    The seed determines the order of the inputs and the module's random numbers.
    """
    device = next(module.parameters()).device
    if device.type != "cpu" and inputs.nbytes < _USABLE * memory_available(device):
        inputs = inputs.to(device)
    schedule = WarmupCosine(base_lr=peak * 256 / batch_size, warmup_epochs=warmup_steps)
    reports = train(
        module.train(),
        _batches(inputs, labels, steps, batch_size, seed, device),
        optimizer.build(module),
        Planned(steps, lambda step: schedule.rate(step, steps, batch_size)),  # one epoch per step
        first_step=0,
        seed=seed,
        device=device,
        precision="float32",
        micro_batch=batch_size,
    )
    for _ in reports:
        pass


def _batches(
    inputs: Tensor, labels: Tensor, steps: int, batch_size: int, seed: int, device: torch.device
) -> Iterator[Batch]:
    for step in range(steps):
        chosen = torch.tensor([i for _, i in samples(step, batch_size, len(labels), seed)])
        rows = inputs[chosen.to(inputs.device)]
        yield Batch((rows,), labels[chosen], chosen, 0).to(device)
