"""A task with class maps: the class of every pixel, from a linear layer on patch tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.annotations import Annotations, AnyAnnotations, ClassMaps
from unmask.contracts import Batch, Loss
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.patches import size_of
from unmask.tasks.task import Prediction, likeliest


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Cross-entropy of every pixel that counts; scored by the mean intersection over union of the classes."""

    needs: ClassVar[type[ClassMaps]] = ClassMaps
    """The annotations that it learns from."""

    holds_out: ClassVar[float] = 0.0
    """Share of the training images kept for choosing thresholds: there are none to choose."""

    trained_blocks: str = "all"
    """How much of the encoder learns: all, or 0 for the linear layer alone."""

    def __post_init__(self) -> None:
        if self.trained_blocks not in ("all", "0"):
            raise SettingsError(
                f"trained_blocks is all or 0 for class maps, got {self.trained_blocks!r}"
            )

    def check(self, depth: int) -> None:
        """Any encoder will do."""

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> "Segmenter":
        """The module around an encoder."""
        assert isinstance(annotations, ClassMaps)
        return Segmenter(self, encoder, annotations)

    def scoring(
        self, annotations: AnyAnnotations, thresholds: tuple[float, ...] | None = None
    ) -> "Overlap":
        """An empty count; there are no thresholds."""
        assert isinstance(annotations, ClassMaps)
        return Overlap(annotations)

    def thresholds(self, outputs: Tensor, truth: Annotations) -> tuple[float, ...] | None:
        """None: each pixel belongs to the class with the highest score."""
        return None

    def predictions(
        self, outputs: Float[Tensor, "b classes h w"], thresholds: tuple[float, ...] | None = None
    ) -> list[Prediction]:
        """Of each image the share of its pixels in every class; classes with any pixel are chosen."""
        shares = F.one_hot(outputs.argmax(1), outputs.shape[1]).float().mean((1, 2))
        return [
            Prediction(order, values, [c for c, v in zip(order, values, strict=True) if v > 0])
            for order, values in likeliest(shares)
        ]


class Segmenter(nn.Module):
    """See `Segment`."""

    def __init__(self, task: Segment, encoder: VisionTransformer, annotations: ClassMaps) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(task.trained_blocks == "all")
        self.head = nn.Linear(encoder.embed_dim, len(annotations.names))
        self.ignored = annotations.ignored

    def predict(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        """Scores of the classes of every pixel: those of the patches, interpolated."""
        size = size_of(images)
        grid = self.encoder.mask_grid(size)
        scores = self.head(self.encoder.encode(images).patches)  # [b n classes]
        scores = scores.mT.unflatten(2, tuple(grid))
        return F.interpolate(scores.float(), size=tuple(size), mode="bilinear")

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean cross-entropy of the pixels that count; nothing is drawn."""
        truth = batch.annotations
        assert isinstance(truth, Tensor)
        if batch.shown is not None:
            raise SettingsError("class maps are learned from whole images; leave out --patch-keep")
        scores = self.predict(batch.images)
        total = F.cross_entropy(scores, truth, ignore_index=self.ignored, reduction="sum")
        return Loss(total / (truth != self.ignored).sum().clamp(min=1), {})


@dataclass(frozen=True, kw_only=True)
class MeanOverlap:
    """What a segmenter scores on images that it has not learned from."""

    measure: ClassVar[str] = "mIoU"
    """What `value` is."""

    mean_iou: float
    """Mean over classes of intersection over union; classes that are neither there nor guessed do not count."""

    pixels_right: float
    """Share of the pixels that count whose class is right."""

    images: int
    """Images tested on."""

    chance: float
    """The mean intersection over union of drawing the class of each pixel."""

    classes: tuple[float | None, ...]
    """Intersection over union of each class, in order; null for classes that do not count."""

    @property
    def value(self) -> float:
        """The figure that comparisons use."""
        return self.mean_iou

    def line(self) -> str:
        """The score in a line."""
        return (
            f"mIoU {self.mean_iou:.2%} (chance {self.chance:.2%}), {self.pixels_right:.2%} of the pixels right, on "
            f"{self.images:,} images"
        )


class Overlap:
    """Counts which class is taken for which, pixel by pixel; counts of several processes add up."""

    def __init__(self, annotations: ClassMaps) -> None:
        self.annotations = annotations
        classes = len(annotations.names)
        self.confusion = torch.zeros(classes, classes, dtype=torch.long)
        """Pixels of each class (rows) that are taken for each class (columns)."""
        self.images = 0

    def add(self, outputs: Float[Tensor, "b classes h w"], truth: Annotations) -> None:
        """Count the pixels of a batch, each with its class."""
        assert isinstance(truth, Tensor)
        counts = truth != self.annotations.ignored
        pairs = torch.stack([truth[counts], outputs.argmax(1)[counts]])
        self.confusion.index_put_(
            (pairs[0], pairs[1]), torch.ones(pairs.shape[1], dtype=torch.long), accumulate=True
        )
        self.images += len(truth)

    def merged(self, parts: Sequence["Overlap"]) -> "Overlap":
        """The counts of all parts together; a process that had no image adds nothing."""
        whole = Overlap(self.annotations)
        for part in parts:
            whole.confusion += part.confusion
            whole.images += part.images
        return whole

    def result(self) -> MeanOverlap:
        """The score of what was counted."""
        hits, union = self.confusion.diag(), _union(self.confusion)
        shares = self.confusion.sum(1) / self.confusion.sum().clamp(min=1)
        guess = 1 / len(shares)
        by_chance = shares * guess / (shares + guess - shares * guess)
        there = union > 0
        return MeanOverlap(
            mean_iou=float((hits[there] / union[there]).mean()) if bool(there.any()) else 0.0,
            pixels_right=float(hits.sum() / self.confusion.sum().clamp(min=1)),
            images=self.images,
            chance=float(by_chance[there].mean()) if bool(there.any()) else 0.0,
            classes=tuple(float(h / u) if u else None for h, u in zip(hits, union, strict=True)),
        )


def _union(confusion: Int[Tensor, "k k"]) -> Int[Tensor, "k"]:
    """Pixels that belong to a class or are taken for it."""
    return confusion.sum(0) + confusion.sum(1) - confusion.diag()
