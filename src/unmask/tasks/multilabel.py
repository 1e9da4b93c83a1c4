"""Multi-label classification: an image may belong to several classes, or to none."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unmask.annotations import Annotations, AnyAnnotations, MultiLabels
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.tasks.classifier import Classifier, check_trained, frozen_halves
from unmask.tasks.heads import AnyHead, MeanHead
from unmask.tasks.task import Prediction, likeliest

EVEN = 0.5
"""The threshold of a class where none was chosen."""


@dataclass(frozen=True, kw_only=True)
class MultiLabel:
    """Binary cross-entropy of every class; scored by the mean over classes of average precision."""

    needs: ClassVar[type[MultiLabels]] = MultiLabels
    """The annotations that it learns from."""

    head: AnyHead = MeanHead()
    """What makes scores of tokens."""

    trained_blocks: str = "all"
    """all (embeddings too), the number of last blocks that learn, half (the last one's MLP), or 0."""

    drop_path: float = 0.0
    """How often the halves of the last block are skipped in training; rises in a line from 0 in the first."""

    weight_average: float = 0.0
    """Share of the old average of the weights that stays at each step; 0 evaluates the weights themselves."""

    holds_out: float = 0.1
    """Share of the training images kept for choosing the threshold of each class."""

    def __post_init__(self) -> None:
        if not 0 <= self.holds_out <= 0.5:
            raise SettingsError(f"holds_out must lie between 0 and 0.5, got {self.holds_out}")
        check_trained(self)

    def check(self, depth: int) -> None:
        """Refuse an encoder with fewer blocks than are to learn."""
        frozen_halves(self.trained_blocks, depth)

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> Classifier:
        """The module around an encoder, of which the trained part is trained with it."""
        return Classifier(self, encoder, len(annotations.names), binary_cross_entropy)

    def scoring(
        self, annotations: AnyAnnotations, thresholds: tuple[float, ...] | None = None
    ) -> "Ranking":
        """An empty score."""
        return Ranking(annotations.names, thresholds)

    def thresholds(
        self, outputs: Float[Tensor, "n classes"], truth: Annotations
    ) -> tuple[float, ...]:
        """For each class the probability from which F1 on these images is highest.

        It lies halfway between two neighbouring probabilities; a class without an image, or with nothing else,
        gets 0.5.
        """
        assert isinstance(truth, Tensor)
        probabilities = outputs.sigmoid().double().numpy()
        known = truth.numpy() > EVEN
        return tuple(_best_threshold(p, t) for p, t in zip(probabilities.T, known.T, strict=True))

    def predictions(
        self,
        outputs: Float[Tensor, "b classes"],
        thresholds: tuple[float, ...] | None = None,
    ) -> list[Prediction]:
        """The classes of each image, the likeliest first; those above their threshold are chosen."""
        limits = thresholds or (EVEN,) * outputs.shape[1]
        return [
            Prediction(
                order, values, [c for c, p in zip(order, values, strict=True) if p >= limits[c]]
            )
            for order, values in likeliest(outputs.sigmoid())
        ]


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """What is scored on one class."""

    name: str
    """The class."""

    images: int
    """Test images that belong to it."""

    average_precision: float | None
    """Area under precision over recall; null without an image of the class."""

    threshold: float
    """The probability from which an image is said to belong to it."""

    precision: float
    """Share of the images said to belong to it that do."""

    recall: float
    """Share of its images that are said to."""

    f1: float
    """Harmonic mean of both."""


@dataclass(frozen=True, kw_only=True)
class MeanAveragePrecision:
    """What a multi-label classifier scores on images that it has not learned from."""

    measure: ClassVar[str] = "mAP"
    """What `value` is."""

    mean_average_precision: float
    """Mean of the average precision over the classes that have test images."""

    f1: float
    """Mean over the same classes of F1 at their thresholds."""

    f1_of_all: float
    """F1 of all decisions of all classes together (micro)."""

    images: int
    """Images tested on."""

    chance: float
    """The mean average precision of random scores: the mean share of images that belong to a class."""

    thresholds: tuple[float, ...]
    """The threshold of each class, in order."""

    classes: tuple[LabelScore, ...]
    """Each class apart."""

    @property
    def value(self) -> float:
        """The figure that comparisons use."""
        return self.mean_average_precision

    def line(self) -> str:
        """The score in a line."""
        return (
            f"mAP {self.mean_average_precision:.2%} (chance {self.chance:.2%}), F1 at chosen "
            f"thresholds {self.f1:.2%} a class, {self.f1_of_all:.2%} in all, on {self.images:,} images"
        )


class Ranking:
    """Keeps all scores: average precision is no sum over images."""

    def __init__(self, names: Sequence[str], thresholds: tuple[float, ...] | None = None) -> None:
        self.names, self.limits = tuple(names), thresholds or (EVEN,) * len(names)
        self.probabilities: list[Tensor] = []
        self.truth: list[Tensor] = []

    def add(self, outputs: Float[Tensor, "b classes"], truth: Annotations) -> None:
        """Take the scores for the images of a batch, and which classes they belong to."""
        assert isinstance(truth, Tensor)
        self.probabilities.append(outputs.sigmoid())
        self.truth.append(truth > EVEN)

    def merged(self, parts: Sequence["Ranking"]) -> "Ranking":
        """One ranking of all that these have taken."""
        whole = Ranking(self.names, self.limits)
        for part in parts:
            whole.probabilities += part.probabilities
            whole.truth += part.truth
        return whole

    def result(self) -> MeanAveragePrecision:
        """The score of all that was taken."""
        return mean_average_precision(
            torch.cat(self.probabilities), torch.cat(self.truth), self.names, self.limits
        )


def mean_average_precision(
    probabilities: Float[Tensor, "n classes"],
    truth: Tensor,
    names: Sequence[str],
    thresholds: tuple[float, ...],
) -> MeanAveragePrecision:
    """Average precision of every class (scikit-learn's step-wise area), F1 at thresholds, and their means.

    `truth` [n classes] says which image belongs to which class.
    """
    chosen = probabilities.double() >= torch.tensor(thresholds, dtype=torch.double)
    hits = (chosen & truth).sum(0).double()
    guessed, actual = chosen.sum(0).double(), truth.sum(0).double()
    precision, recall = (hits / total.clamp(min=1) for total in (guessed, actual))
    f1 = 2 * hits / (guessed + actual).clamp(min=1)
    areas = [
        _average_precision(known, score)
        for known, score in zip(truth.T.numpy(), probabilities.T.numpy(), strict=True)
    ]
    there = actual > 0
    figures = (values.tolist() for values in (actual.long(), precision, recall, f1))
    classes = tuple(
        LabelScore(
            name=name,
            images=count,
            average_precision=area,
            threshold=threshold,
            precision=p,
            recall=r,
            f1=f,
        )
        for name, area, threshold, count, p, r, f in zip(
            names, areas, thresholds, *figures, strict=True
        )
    )
    known = [area for area in areas if area is not None]
    return MeanAveragePrecision(
        mean_average_precision=sum(known) / max(1, len(known)),
        f1=float(f1[there].mean()) if bool(there.any()) else 0.0,
        f1_of_all=float(2 * hits.sum() / (guessed + actual).sum().clamp(min=1)),
        images=len(truth),
        chance=float((actual[there] / len(truth)).mean()) if bool(there.any()) else 0.0,
        thresholds=thresholds,
        classes=classes,
    )


def binary_cross_entropy(
    logits: Float[Tensor, "b classes"], truth: Annotations
) -> Float[Tensor, ""]:
    """The mean over images and classes; the truth may be a share between 0 and 1, where images are mixed."""
    assert isinstance(truth, Tensor)
    return F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))


def _average_precision(truth: NDArray[np.bool_], score: NDArray[np.float32]) -> float | None:
    """None where the class has no image: the curve is not defined."""
    from sklearn.metrics import average_precision_score

    if not truth.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return float(average_precision_score(truth, score))


def _best_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    if not truth.any() or truth.all():
        return EVEN
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    ends = np.append(ranked[1:] < ranked[:-1], True)  # ties are taken together
    best = int(np.argmax(np.where(ends, f1, -1.0)))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
