"""The contract of a task: the annotations it needs, its module, its predictions and its score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from unmask.annotations import Annotations, AnyAnnotations
from unmask.encoders.vit import VisionTransformer
from unmask.measures import Measure, Scored

Thresholds = tuple[float, ...] | None
"""The lowest probability of each class at which an image is predicted to belong to it; None if there are none."""


class Prediction(NamedTuple):
    """The prediction for a whole image."""

    classes: list[int]
    """All classes by decreasing probability."""
    probabilities: list[float]
    """The probabilities of `classes`."""
    chosen: list[int]
    """The predicted classes by decreasing probability."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """The scores of one class."""

    name: str
    """Name of the class."""

    images: int
    """Number of its test images."""

    recall: float
    """Share of the class's images that are predicted as the class."""

    precision: float
    """Share of the images predicted as the class that belong to it."""

    f1: float
    """Harmonic mean of precision and recall."""


@runtime_checkable
class Score(Protocol):
    """A score: a spec, written to `results.json`."""

    @property
    def measure(self) -> str:
        """Name of the metric in `value`, such as top-1."""
        ...

    @property
    def value(self) -> float:
        """The metric for comparisons, between 0 and 1; higher is better."""
        ...

    @property
    def chance(self) -> float:
        """The value of random guessing."""
        ...

    @property
    def images(self) -> int:
        """Number of test images."""
        ...

    def measures(self) -> tuple[Measure, ...]:
        """All measures and numbers, first the one in `value`."""
        ...

    def line(self) -> str:
        """The score in one line."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """Accumulates outputs for a score. It can be pickled, so that several processes can merge theirs."""

    def add(self, outputs: Any, truth: Annotations) -> None:
        """Add the outputs and annotations of a batch."""
        ...

    def merged(self, parts: Sequence[Any]) -> "Scoring":
        """One scoring with the images of several."""
        ...

    def result(self) -> Score:
        """The score of all added images."""
        ...


@runtime_checkable
class Task(Protocol):
    """The spec of a task. A new one is a file with these methods, and one line in `tasks.AnyTask`."""

    @property
    def needs(self) -> type:
        """The class of annotations that the task needs."""
        ...

    @property
    def score_types(self) -> tuple[type[Scored], ...]:
        """The classes of its scores, of which `results.json` holds one."""
        ...

    @property
    def holds_out(self) -> float:
        """Share of the training images held out for choosing thresholds; 0 if the task has no thresholds."""
        ...

    def check(self, depth: int) -> None:
        """Refuse an encoder with `depth` blocks if the task cannot train it."""
        ...

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> nn.Module:
        """The module to train: a `Trainable` with `encoder` and `predict(images)`."""
        ...

    def scoring(self, annotations: AnyAnnotations, thresholds: Thresholds = None) -> Scoring:
        """An empty scoring."""
        ...

    def thresholds(self, outputs: Any, truth: Annotations) -> Thresholds:
        """Thresholds chosen on held-out training images; None if the task has no thresholds."""
        ...

    def predictions(self, outputs: Any, thresholds: Thresholds = None) -> list[Prediction]:
        """The prediction for each image."""
        ...


def recall_precision_f1(
    hits: Tensor, actual: Tensor, predicted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Recall, precision and F1 of each class, 0 where they are not defined.

    From the numbers of images that are rightly predicted as the class, that belong to it, and that are predicted as it.
    """
    recall, precision = (hits / total.clamp(min=1) for total in (actual, predicted))
    return recall, precision, 2 * hits / (actual + predicted).clamp(min=1)


def likeliest(probabilities: Float[Tensor, "b classes"]) -> Iterator[tuple[list[int], list[float]]]:
    """All classes of each image by decreasing probability, and their probabilities."""
    ordered = probabilities.sort(dim=1, descending=True, stable=True)
    yield from zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True)
