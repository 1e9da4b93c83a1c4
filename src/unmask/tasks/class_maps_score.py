"""The score of predicted class maps: intersection over union of each class, from one confusion matrix of all pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from unmask.annotations import ClassMaps
from unmask.errors import DataError
from unmask.measures import Baseline, Measure, ScoreTable


@dataclass(frozen=True, kw_only=True)
class ClassPixels:
    """The scores of the pixels of one class."""

    name: str
    """Name of the class."""

    pixels: int
    """Number of its test pixels."""

    iou: float | None
    """Intersection over union of true and predicted pixels; null if no test pixel is, or is predicted as, the class."""

    recall: float | None
    """Share of the class's pixels that are predicted as the class; null if it has none."""

    precision: float | None
    """Share of the pixels predicted as the class that belong to it; null if there are none."""


@dataclass(frozen=True, kw_only=True)
class MeanIoU:
    """The score of predicted class maps on test images.

    Pixels of the ignored number count nowhere. As in mmsegmentation and in scikit-learn's macro-averaged Jaccard score,
    the mean is over the classes that occur in the truth or in the predictions: a class that is in neither does not count,
    and a class that is only predicted counts as 0.
    """

    mean_iou: float
    """Mean intersection over union of the classes that occur in the truth or in the predictions."""

    mean_accuracy: float
    """Mean recall of the classes that occur in the truth (mAcc)."""

    pixel_accuracy: float
    """Share of pixels whose class is predicted (aAcc)."""

    images: int
    """Number of test images."""

    pixels: int
    """Number of test pixels with a class."""

    chance: float
    """The best mean intersection over union of one class everywhere: the largest class's share of pixels, over the number
    of classes that occur."""

    majority: float
    """Pixel accuracy of the most frequent class everywhere."""

    classes: tuple[ClassPixels, ...]
    """The scores of each class."""

    @property
    def measure(self) -> str:
        """Name of the metric in `value`."""
        return "mIoU"

    @property
    def value(self) -> float:
        """The metric for comparisons."""
        return self.mean_iou

    def line(self) -> str:
        """The score in one line."""
        return (
            f"mIoU {self.mean_iou:.2%}, mean accuracy {self.mean_accuracy:.2%}, pixel accuracy "
            f"{self.pixel_accuracy:.2%} on {self.images:,} images (largest class everywhere: mIoU {self.chance:.2%}, "
            f"pixel accuracy {self.majority:.2%})"
        )

    def measures(self) -> tuple[Measure, ...]:
        """mIoU and accuracies, beside those of the most frequent class everywhere."""
        everywhere = "largest class everywhere"
        return (
            Measure(self.measure, self.mean_iou, baseline=Baseline(everywhere, self.chance)),
            Measure("mean accuracy", self.mean_accuracy),
            Measure(
                "pixel accuracy", self.pixel_accuracy, baseline=Baseline(everywhere, self.majority)
            ),
            Measure("test images", self.images, "count", None),
        )

    def table(self) -> ScoreTable:
        """The scores of each class, and its share of the test pixels."""
        headings = ("class", "pixels", "share of pixels", "IoU", "recall", "precision")
        pixels = max(1, self.pixels)
        rows = tuple(
            (one.name, one.pixels, one.pixels / pixels, one.iou, one.recall, one.precision)
            for one in self.classes
        )
        return ScoreTable(headings, rows, described=3, ranked_by="IoU")


class ClassMapsScoring:
    """Counts pixels by true and predicted class; counts of several processes are added, so the sum is exact."""

    def __init__(self, annotations: ClassMaps) -> None:
        self.annotations = annotations
        classes = len(annotations.names)
        self.counts = torch.zeros(classes, classes, dtype=torch.long)
        """Number of pixels by true class (rows) and predicted class (columns)."""
        self.images = 0

    def add(self, outputs: Any, truth: Any) -> None:
        """Count the pixels of images: for each, the predicted and the true class map, both of its size [h w].

        Raises:
            DataError: if a true class map holds a number that is neither a class nor ignored.
        """
        for predicted, actual in zip(outputs, truth, strict=True):
            self.counts += self._counted(predicted, actual)
            self.images += 1

    def _counted(
        self, predicted: Int[Tensor, "h w"], actual: Int[Tensor, "h w"]
    ) -> Int[Tensor, "classes classes"]:
        known = actual != self.annotations.ignored
        rows, columns = actual[known].long(), predicted[known].long()
        classes = len(self.counts)
        unknown = rows[(rows < 0) | (rows >= classes)]
        if len(unknown):
            raise DataError(
                f"a class map holds the number {unknown[0]}, but there are {classes} classes, numbered from 0, and the "
                f"ignored number is {self.annotations.ignored}; correct the map, or the list of classes"
            )
        return torch.bincount(rows * classes + columns, minlength=classes**2).view(classes, classes)

    def merged(self, parts: Sequence["ClassMapsScoring"]) -> "ClassMapsScoring":
        """The sum of several counts."""
        whole = ClassMapsScoring(self.annotations)
        for part in parts:
            whole.counts += part.counts
            whole.images += part.images
        return whole

    def of_classes(self) -> Int[Tensor, "3 classes"]:
        """The pixels of each class that are right, that are true, and that are predicted."""
        return torch.stack([self.counts.diag(), self.counts.sum(1), self.counts.sum(0)])

    def result(self) -> MeanIoU:
        """The score of all counted pixels; 0 if no pixel has a class."""
        hits, actual, predicted = self.of_classes()
        pixels, occurring = int(actual.sum()), int((actual > 0).sum())
        either = actual + predicted - hits
        iou, recall, precision = (_shares(hits, total) for total in (either, actual, predicted))
        majority = int(actual.max()) / max(1, pixels)
        figures = zip(self.annotations.names, actual.tolist(), iou, recall, precision, strict=True)
        return MeanIoU(
            mean_iou=_mean(iou),
            mean_accuracy=_mean(recall),
            pixel_accuracy=int(hits.sum()) / max(1, pixels),
            images=self.images,
            pixels=pixels,
            chance=majority / max(1, occurring),
            majority=majority,
            classes=tuple(
                ClassPixels(name=name, pixels=count, iou=i, recall=r, precision=p)
                for name, count, i, r, p in figures
            ),
        )


def _shares(hits: Int[Tensor, " classes"], totals: Int[Tensor, " classes"]) -> list[float | None]:
    """Hits over totals of each class; None where the total is 0."""
    pairs = zip(hits.tolist(), totals.tolist(), strict=True)
    return [hit / total if total else None for hit, total in pairs]


def _mean(shares: Sequence[float | None]) -> float:
    """The mean of the shares that are defined."""
    defined = [share for share in shares if share is not None]
    return sum(defined) / max(1, len(defined))
