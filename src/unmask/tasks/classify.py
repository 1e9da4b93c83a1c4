"""Classification: from scratch, full and partial fine-tuning, and probes are one task.

They differ in how much of the encoder learns (`trained_blocks`) and in the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unmask.annotations import Annotations, AnyAnnotations, ClassLabels
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.tasks.classifier import Classifier, check_trained, frozen_halves
from unmask.tasks.heads import AnyHead, MeanHead
from unmask.tasks.task import ClassScore, Prediction, likeliest

_PLACES = 5  # of top-5


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Cross-entropy on class labels, or on the shares of classes in mixed images."""

    needs: ClassVar[type[ClassLabels]] = ClassLabels
    """The annotations that it learns from."""

    holds_out: ClassVar[float] = 0.0
    """Share of the training images kept for choosing thresholds: there are none to choose."""

    head: AnyHead = MeanHead()
    """What makes scores of tokens."""

    trained_blocks: str = "all"
    """all (embeddings too), the number of last blocks that learn, half (the last one's MLP), or 0."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""

    drop_path: float = 0.0
    """How often the halves of the last block are skipped in training; rises in a line from 0 in the first."""

    weight_average: float = 0.0
    """Share of the old average of the weights that stays at each step; 0 evaluates the weights themselves."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        check_trained(self)

    def check(self, depth: int) -> None:
        """Refuse an encoder with fewer blocks than are to learn."""
        frozen_halves(self.trained_blocks, depth)

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> Classifier:
        """The module around an encoder, of which the trained part is trained with it."""
        loss = partial(_cross_entropy, label_smoothing=self.label_smoothing)
        return Classifier(self, encoder, len(annotations.names), loss)

    def scoring(
        self, annotations: AnyAnnotations, thresholds: tuple[float, ...] | None = None
    ) -> "Counting":
        """An empty count; there are no thresholds."""
        return Counting(annotations.names)

    def thresholds(
        self, outputs: Float[Tensor, "n classes"], truth: Annotations
    ) -> tuple[float, ...] | None:
        """None: the class with the highest score is taken."""
        return None

    def predictions(
        self,
        outputs: Float[Tensor, "b classes"],
        thresholds: tuple[float, ...] | None = None,
    ) -> list[Prediction]:
        """The classes of each image, the likeliest first; the likeliest is chosen."""
        return [
            Prediction(order, probabilities, order[:1])
            for order, probabilities in likeliest(outputs.softmax(1))
        ]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a classifier scores on images that it has not learned from."""

    measure: ClassVar[str] = "top-1"
    """What `value` is."""

    top1: float
    """Share of images whose class has the highest score."""

    top5: float
    """Share of images whose class is among the five highest scores."""

    balanced: float
    """Mean over the classes of the share of their images that are recognised."""

    images: int
    """Images tested on."""

    chance: float
    """What guessing would give."""

    majority: float
    """Share of the most frequent class: what always naming it would give."""

    classes: tuple[ClassScore, ...]
    """Each class apart."""

    @property
    def value(self) -> float:
        """The figure that comparisons use."""
        return self.top1

    def line(self) -> str:
        """The score in a line."""
        top5 = f", top-5 {self.top5:.2%}" if len(self.classes) > _PLACES else ""
        return (
            f"top-1 {self.top1:.2%}{top5}, balanced {self.balanced:.2%} on {self.images:,} images "
            f"(chance {self.chance:.2%}, largest class {self.majority:.2%})"
        )


class Counting:
    """Counts what is taken for what; counts of several processes add up."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.confusion = torch.zeros(len(names), len(names), dtype=torch.long)
        """Images of each class (rows) that are taken for each class (columns)."""
        self.among_five = 0

    def add(self, outputs: Float[Tensor, "b classes"], truth: Annotations) -> None:
        """Count the images of a batch, each with its class."""
        assert isinstance(truth, Tensor)
        best = outputs.topk(min(_PLACES, outputs.shape[1])).indices
        pairs = torch.stack([truth, outputs.argmax(1)])
        ones = torch.ones(len(truth), dtype=torch.long)
        self.confusion.index_put_((pairs[0], pairs[1]), ones, accumulate=True)
        self.among_five += int((best == truth[:, None]).any(1).sum())

    def merged(self, parts: Sequence["Counting"]) -> "Counting":
        """The counts of all parts together."""
        whole = Counting(self.names)
        for part in parts:
            whole.confusion += part.confusion
            whole.among_five += part.among_five
        return whole

    def result(self) -> Accuracy:
        """The score of what was counted."""
        return accuracy_of_counts(self.confusion, self.among_five, self.names)


def accuracy_of_counts(
    confusion: Int[Tensor, "classes classes"], among_five: int, names: Sequence[str]
) -> Accuracy:
    """Accuracy from counts of images of each class (rows) taken for each class (columns).

    Recall, precision and F1 of a class without images or guesses are 0, and a class without images does not
    count in the balanced accuracy.
    """
    hits, actual, guessed = confusion.diag(), confusion.sum(1), confusion.sum(0)
    images = int(confusion.sum())
    recall, precision = (hits / total.clamp(min=1) for total in (actual, guessed))
    f1 = 2 * hits / (actual + guessed).clamp(min=1)
    figures = (actual, recall, precision, f1)
    rows = zip(names, *(values.tolist() for values in figures), strict=True)
    return Accuracy(
        top1=int(hits.sum()) / images,
        top5=among_five / images,
        balanced=float(recall[actual > 0].double().mean()),
        images=images,
        chance=1 / len(names),
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
