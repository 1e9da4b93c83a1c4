"""A task with class maps: how much of an image each class covers, from a linear layer on the mean of the patch tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.annotations import Annotations, AnyAnnotations, ClassMaps
from unmask.contracts import Batch, Loss
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.measures import Baseline, Measure
from unmask.tasks.task import Prediction, likeliest


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Cross-entropy with the share of each class among the pixels that count; scored by the mean error of the shares."""

    needs: ClassVar[type[ClassMaps]] = ClassMaps
    """The annotations that it learns from."""

    holds_out: ClassVar[float] = 0.0
    """Share of the training images kept for choosing thresholds: there are none to choose."""

    trained_blocks: str = "all"
    """How much of the encoder learns: all, or 0 for the linear layer alone."""

    def __post_init__(self) -> None:
        if self.trained_blocks not in ("all", "0"):
            raise SettingsError(
                f"trained_blocks is all or 0 for coverage, got {self.trained_blocks!r}"
            )

    @property
    def score_types(self) -> "tuple[type[Closeness]]":
        """The class of its score."""
        return (Closeness,)

    def check(self, depth: int) -> None:
        """Any encoder will do."""

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> "Estimator":
        """The module around an encoder."""
        assert isinstance(annotations, ClassMaps)
        return Estimator(self, encoder, annotations)

    def scoring(
        self, annotations: AnyAnnotations, thresholds: tuple[float, ...] | None = None
    ) -> "Errors":
        """An empty sum; there are no thresholds."""
        assert isinstance(annotations, ClassMaps)
        return Errors(annotations)

    def thresholds(self, outputs: Tensor, truth: Annotations) -> tuple[float, ...] | None:
        """None: shares are estimated, and nothing is chosen."""
        return None

    def predictions(
        self, outputs: Float[Tensor, "b classes"], thresholds: tuple[float, ...] | None = None
    ) -> list[Prediction]:
        """Of each image the share of every class; those of at least a hundredth are chosen."""
        return [
            Prediction(order, values, [c for c, v in zip(order, values, strict=True) if v >= 0.01])
            for order, values in likeliest(outputs.softmax(1))
        ]


class Estimator(nn.Module):
    """See `Coverage`."""

    def __init__(self, task: Coverage, encoder: VisionTransformer, annotations: ClassMaps) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(task.trained_blocks == "all")
        self.head = nn.Linear(encoder.embed_dim, len(annotations.names))
        self.annotations = annotations

    def predict(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Logarithms of the shares, up to a constant."""
        return self.head(self.encoder.encode(images).patches.mean(1))

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean cross-entropy with the true shares; nothing is drawn."""
        shares = shares_of(batch.annotations, self.annotations)
        return Loss(F.cross_entropy(self.predict(batch.images), shares), {})


def shares_of(truth: Annotations, annotations: ClassMaps) -> Float[Tensor, "b classes"]:
    """The share of each class among the pixels of an image that count; 0 for all where none counts."""
    assert isinstance(truth, Tensor)
    counts = truth != annotations.ignored
    classes = len(annotations.names)
    ones = F.one_hot(truth.clamp(max=classes - 1), classes) * counts[..., None]
    return ones.sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)[:, None]


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How close estimated shares are to the true ones, on images that were not learned from."""

    closeness: float
    """1 minus the mean, over images, of half the sum of the absolute errors of the shares."""

    images: int
    """Images tested on."""

    chance: float
    """The closeness of equal shares."""

    @property
    def measure(self) -> str:
        """What `value` is."""
        return "closeness"

    @property
    def value(self) -> float:
        """The figure that comparisons use."""
        return self.closeness

    def measures(self) -> tuple[Measure, ...]:
        """The closeness beside that of equal shares, for the console and the report."""
        return (
            Measure(self.measure, self.closeness, baseline=Baseline("equal shares", self.chance)),
            Measure("test images", self.images, "count", None),
        )

    def line(self) -> str:
        """The score in a line."""
        return f"closeness {self.closeness:.2%} (equal shares {self.chance:.2%}) on {self.images:,} images"


class Errors:
    """Adds up errors of shares; those of several processes add up too."""

    def __init__(self, annotations: ClassMaps) -> None:
        self.annotations = annotations
        self.images, self.error, self.error_of_equal = 0, 0.0, 0.0

    def add(self, outputs: Float[Tensor, "b classes"], truth: Annotations) -> None:
        """Add the images of a batch."""
        shares = shares_of(truth, self.annotations).double()
        for guess, name in (
            (outputs.softmax(1).double(), "error"),
            (torch.full_like(shares, 1 / shares.shape[1]), "error_of_equal"),
        ):
            setattr(self, name, getattr(self, name) + float((guess - shares).abs().sum()) / 2)
        self.images += len(shares)

    def merged(self, parts: Sequence["Errors"]) -> "Errors":
        """The sums of all parts together; a process that had no image adds nothing."""
        whole = Errors(self.annotations)
        for part in parts:
            whole.images += part.images
            whole.error += part.error
            whole.error_of_equal += part.error_of_equal
        return whole

    def result(self) -> Closeness:
        """The score of what was added."""
        images = max(1, self.images)
        return Closeness(
            closeness=1 - self.error / images,
            images=self.images,
            chance=1 - self.error_of_equal / images,
        )
