"""Classification with one class per image: training from scratch, full and partial fine-tuning, and probes.

They differ only in the trained part of the encoder (`trained_blocks`) and in the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unmask.annotations import Annotations, AnyAnnotations, ClassLabels
from unmask.encoders.vit import VisionTransformer
from unmask.measures import Baseline, Measure, ScoreTable
from unmask.spec import within
from unmask.tasks.classifier import Classifier, check_trained
from unmask.tasks.heads import AnyHead, MeanHead
from unmask.tasks.task import ClassScore, Prediction, Thresholds, likeliest, recall_precision_f1
from unmask.tasks.trained import frozen_halves

_TOP = 5  # for top-5 accuracy


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Classification: cross-entropy on class labels, or on class shares of mixed images."""

    needs: ClassVar[type[ClassLabels]] = ClassLabels
    """The annotations that the task needs."""

    holds_out: ClassVar[float] = 0.0
    """Share of the training images held out for choosing thresholds: 0, because there are no thresholds."""

    head: AnyHead = MeanHead()
    """The head, from tokens to class scores."""

    trained_blocks: str = "all"
    """Trained part of the encoder: all (with embeddings), the last N blocks, half (the MLP of the last block), or 0."""

    label_smoothing: float = 0.0
    """Share of the target distribution that is spread over all classes."""

    drop_path: float = 0.0
    """Stochastic depth: probability of skipping each half of the last block; increases linearly from 0 in the first."""

    weight_average: float = 0.0
    """Decay of the moving average of the weights used for evaluation; 0 evaluates the weights themselves."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "label_smoothing")
        check_trained(self)

    @property
    def score_types(self) -> "tuple[type[Accuracy]]":
        """The class of its score."""
        return (Accuracy,)

    def check(self, depth: int) -> None:
        """Refuse an encoder with fewer blocks than `trained_blocks`."""
        frozen_halves(self.trained_blocks, depth)

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> Classifier:
        """The module, which trains the encoder's trained part in place."""
        loss = partial(_cross_entropy, label_smoothing=self.label_smoothing)
        return Classifier(self, encoder, len(annotations.names), loss)

    def scoring(self, annotations: AnyAnnotations, thresholds: Thresholds = None) -> "Counting":
        """Empty counts; thresholds are not used."""
        return Counting(annotations.names)

    def thresholds(self, outputs: Float[Tensor, "n classes"], truth: Annotations) -> Thresholds:
        """None: the prediction is the class with the highest score."""
        return None

    def predictions(
        self, outputs: Float[Tensor, "b classes"], thresholds: Thresholds = None
    ) -> list[Prediction]:
        """The classes of each image by decreasing probability; the first is the prediction."""
        return [
            Prediction(order, probabilities, order[:1])
            for order, probabilities in likeliest(outputs.softmax(1))
        ]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The accuracy of a classifier on test images."""

    top1: float
    """Share of images whose class has the highest score."""

    top5: float
    """Share of images whose class is among the five highest scores."""

    balanced: float
    """Mean of the recall of all classes."""

    images: int
    """Number of test images."""

    chance: float
    """Accuracy of random guessing."""

    majority: float
    """Accuracy of always predicting the most frequent class."""

    classes: tuple[ClassScore, ...]
    """The scores of each class."""

    @property
    def measure(self) -> str:
        """Name of the metric in `value`."""
        return "top-1"

    @property
    def value(self) -> float:
        """The metric for comparisons."""
        return self.top1

    def measures(self) -> tuple[Measure, ...]:
        """Accuracies, beside those of the largest class and of guessing."""
        largest = Baseline("largest class", self.majority)
        guessing = Baseline("guessing", self.chance)
        top5 = (Measure("top-5", self.top5),) if len(self.classes) > _TOP else ()
        return (
            Measure(self.measure, self.top1, baseline=largest),
            *top5,
            Measure("balanced accuracy", self.balanced, baseline=guessing),
            Measure("test images", self.images, "count", None),
        )

    def table(self) -> ScoreTable:
        """Precision, recall and F1 of each class; not defined for a class without test images."""
        headings = ("class", "images", "precision", "recall", "F1")
        rows = tuple(
            (
                one.name,
                one.images,
                *((one.precision, one.recall, one.f1) if one.images else (None,) * 3),
            )
            for one in self.classes
        )
        return ScoreTable(headings, rows, described=2, ranked_by="F1")

    def line(self) -> str:
        """The score in one line."""
        top5 = f", top-5 {self.top5:.2%}" if len(self.classes) > _TOP else ""
        return (
            f"top-1 {self.top1:.2%}{top5}, balanced {self.balanced:.2%} on {self.images:,} images "
            f"(chance {self.chance:.2%}, largest class {self.majority:.2%})"
        )


class Counting:
    """Counts a confusion matrix; counts of several processes can be added."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.confusion = torch.zeros(len(names), len(names), dtype=torch.long)
        """Number of images by true class (rows) and predicted class (columns)."""
        self.among_five = 0

    def add(self, outputs: Float[Tensor, "b classes"], truth: Annotations) -> None:
        """Count the images of a batch."""
        assert isinstance(truth, Tensor)
        best = outputs.topk(min(_TOP, outputs.shape[1])).indices
        pairs = torch.stack([truth, outputs.argmax(1)])
        ones = torch.ones(len(truth), dtype=torch.long)
        self.confusion.index_put_((pairs[0], pairs[1]), ones, accumulate=True)
        self.among_five += int((best == truth[:, None]).any(1).sum())

    def merged(self, parts: Sequence["Counting"]) -> "Counting":
        """The sum of several counts."""
        whole = Counting(self.names)
        for part in parts:
            whole.confusion += part.confusion
            whole.among_five += part.among_five
        return whole

    def result(self) -> Accuracy:
        """The accuracy of all counted images.

        Recall, precision and F1 of a class without images or predictions are 0. Classes without images are not in the
        balanced accuracy.
        """
        confusion = self.confusion
        hits, actual, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
        images = int(confusion.sum())
        recall, precision, f1 = recall_precision_f1(hits, actual, predicted)
        figures = (actual, recall, precision, f1)
        rows = zip(self.names, *(values.tolist() for values in figures), strict=True)
        return Accuracy(
            top1=int(hits.sum()) / images,
            top5=self.among_five / images,
            balanced=float(recall[actual > 0].double().mean()),
            images=images,
            chance=1 / len(self.names),
            majority=int(actual.max()) / images,
            classes=tuple(
                ClassScore(name=name, images=count, recall=r, precision=p, f1=f)
                for name, count, r, p, f in rows
            ),
        )


def _cross_entropy(
    logits: Float[Tensor, "b classes"], truth: Annotations, label_smoothing: float
) -> Float[Tensor, ""]:
    assert isinstance(truth, Tensor)
    return F.cross_entropy(logits, truth, label_smoothing=label_smoothing)
