"""Multi-label classification: an image may belong to any number of classes."""

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
from unmask.measures import Baseline, Measure, ScoreTable
from unmask.spec import within
from unmask.tasks.classifier import Classifier, check_trained
from unmask.tasks.heads import AnyHead, MeanHead
from unmask.tasks.task import Prediction, Thresholds, likeliest, recall_precision_f1
from unmask.tasks.trained import frozen_halves

EVEN = 0.5
"""The default threshold of a class."""


@dataclass(frozen=True, kw_only=True)
class MultiLabel:
    """Multi-label classification: binary cross-entropy of each class, scored by mean average precision."""

    needs: ClassVar[type[MultiLabels]] = MultiLabels
    """The annotations that the task needs."""

    head: AnyHead = MeanHead()
    """The head, from tokens to class scores."""

    trained_blocks: str = "all"
    """Trained part of the encoder: all (with embeddings), the last N blocks, half (the MLP of the last block), or 0."""

    drop_path: float = 0.0
    """Stochastic depth: probability of skipping each half of the last block; increases linearly from 0 in the first."""

    weight_average: float = 0.0
    """Decay of the moving average of the weights used for evaluation; 0 evaluates the weights themselves."""

    holds_out: float = 0.1
    """Share of the training images held out for choosing the threshold of each class."""

    def __post_init__(self) -> None:
        within(self, "[0, 0.5]", "holds_out")
        check_trained(self)

    @property
    def score_types(self) -> "tuple[type[MeanAveragePrecision]]":
        """The class of its score."""
        return (MeanAveragePrecision,)

    def check(self, depth: int) -> None:
        """Refuse an encoder with fewer blocks than `trained_blocks`."""
        frozen_halves(self.trained_blocks, depth)

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> Classifier:
        """The module, which trains the encoder's trained part in place."""
        return Classifier(self, encoder, len(annotations.names), binary_cross_entropy)

    def scoring(self, annotations: AnyAnnotations, thresholds: Thresholds = None) -> "Ranking":
        """An empty scoring."""
        return Ranking(annotations.names, thresholds)

    def thresholds(self, outputs: Float[Tensor, "n classes"], truth: Annotations) -> Thresholds:
        """For each class the threshold with the highest F1 on these images.

        It is halfway between two neighbouring probabilities; a class that no image has, or all have, gets 0.5.
        """
        assert isinstance(truth, Tensor)
        probabilities = outputs.sigmoid().double().numpy()
        member = truth.numpy() > EVEN
        return tuple(_best_threshold(p, t) for p, t in zip(probabilities.T, member.T, strict=True))

    def predictions(
        self, outputs: Float[Tensor, "b classes"], thresholds: Thresholds = None
    ) -> list[Prediction]:
        """The classes of each image by decreasing probability; those at or above their threshold are predicted."""
        limits = thresholds or (EVEN,) * outputs.shape[1]
        return [
            Prediction(
                order, values, [c for c, p in zip(order, values, strict=True) if p >= limits[c]]
            )
            for order, values in likeliest(outputs.sigmoid())
        ]


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """The scores of one class."""

    name: str
    """Name of the class."""

    images: int
    """Number of its test images."""

    average_precision: float | None
    """Area under the precision-recall curve; null if the class has no test images."""

    threshold: float
    """Lowest probability at which an image is predicted to belong to the class."""

    precision: float
    """Share of the predicted images that belong to the class."""

    recall: float
    """Share of the class's images that are predicted."""

    f1: float
    """Harmonic mean of precision and recall."""


@dataclass(frozen=True, kw_only=True)
class MeanAveragePrecision:
    """The scores of a multi-label classifier on test images."""

    mean_average_precision: float
    """Mean of the average precision over the classes with test images."""

    f1: float
    """Macro F1: mean of F1 at the thresholds, over the classes with test images."""

    f1_of_all: float
    """Micro F1: F1 over all decisions of all classes."""

    images: int
    """Number of test images."""

    chance: float
    """Mean average precision of random scores: the mean share of images that belong to a class."""

    thresholds: tuple[float, ...]
    """The threshold of each class, in order."""

    classes: tuple[LabelScore, ...]
    """The scores of each class."""

    @property
    def measure(self) -> str:
        """Name of the metric in `value`."""
        return "mAP"

    @property
    def value(self) -> float:
        """The metric for comparisons."""
        return self.mean_average_precision

    def measures(self) -> tuple[Measure, ...]:
        """Mean average precision, beside that of random scores, and F1 at the thresholds."""
        random = Baseline("random scores", self.chance)
        return (
            Measure(self.measure, self.mean_average_precision, baseline=random),
            Measure("macro F1", self.f1),
            Measure("micro F1", self.f1_of_all),
            Measure("test images", self.images, "count", None),
        )

    def table(self) -> ScoreTable:
        """Scores of each class; not defined for a class without test images."""
        headings = ("class", "images", "threshold", "AP", "precision", "recall", "F1")
        rows = tuple((one.name, one.images, one.threshold, *_scores(one)) for one in self.classes)
        return ScoreTable(headings, rows, described=3, ranked_by="F1")

    def line(self) -> str:
        """The score in one line."""
        return (
            f"mAP {self.mean_average_precision:.2%} (chance {self.chance:.2%}), F1 at the chosen "
            f"thresholds {self.f1:.2%} macro, {self.f1_of_all:.2%} micro, on {self.images:,} images"
        )


def _scores(one: LabelScore) -> tuple[float | None, ...]:
    if not one.images:
        return (None,) * 4
    return one.average_precision, one.precision, one.recall, one.f1


class Ranking:
    """Collects all class scores, because average precision is not a sum over images."""

    def __init__(self, names: Sequence[str], thresholds: Thresholds = None) -> None:
        self.names, self.limits = tuple(names), thresholds or (EVEN,) * len(names)
        self.probabilities: list[Tensor] = []
        self.truth: list[Tensor] = []

    def add(self, outputs: Float[Tensor, "b classes"], truth: Annotations) -> None:
        """Add the class scores and labels of a batch."""
        assert isinstance(truth, Tensor)
        self.probabilities.append(outputs.sigmoid())
        self.truth.append(truth > EVEN)

    def merged(self, parts: Sequence["Ranking"]) -> "Ranking":
        """One ranking with the images of several."""
        whole = Ranking(self.names, self.limits)
        for part in parts:
            whole.probabilities += part.probabilities
            whole.truth += part.truth
        return whole

    def result(self) -> MeanAveragePrecision:
        """Average precision of each class (scikit-learn's step-wise area), F1 at thresholds, and their means."""
        probabilities, truth = torch.cat(self.probabilities), torch.cat(self.truth)
        chosen = probabilities.double() >= torch.tensor(self.limits, dtype=torch.double)
        hits = (chosen & truth).sum(0).double()
        predicted, actual = chosen.sum(0).double(), truth.sum(0).double()
        recall, precision, f1 = recall_precision_f1(hits, actual, predicted)
        areas = [
            _average_precision(member, score)
            for member, score in zip(truth.T.numpy(), probabilities.T.numpy(), strict=True)
        ]
        present = actual > 0
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
                self.names, areas, self.limits, *figures, strict=True
            )
        )
        defined = [area for area in areas if area is not None]
        return MeanAveragePrecision(
            mean_average_precision=sum(defined) / max(1, len(defined)),
            f1=float(f1[present].mean()) if bool(present.any()) else 0.0,
            f1_of_all=float(2 * hits.sum() / (predicted + actual).sum().clamp(min=1)),
            images=len(truth),
            chance=float((actual[present] / len(truth)).mean()) if bool(present.any()) else 0.0,
            thresholds=self.limits,
            classes=classes,
        )


def binary_cross_entropy(
    logits: Float[Tensor, "b classes"], truth: Annotations
) -> Float[Tensor, ""]:
    """The mean over images and classes; the labels of mixed images are between 0 and 1."""
    assert isinstance(truth, Tensor)
    return F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))


def _average_precision(truth: NDArray[np.bool_], score: NDArray[np.float32]) -> float | None:
    """None if the class has no images, because the curve is not defined."""
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
    ends = np.append(ranked[1:] < ranked[:-1], True)  # no threshold separates equal probabilities
    best = int(np.argmax(np.where(ends, f1, -1.0)))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
