"""What a task offers: the annotations it needs, its module, its predictions and its score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from unmask.annotations import Annotations, AnyAnnotations
from unmask.encoders.vit import VisionTransformer


class Prediction(NamedTuple):
    """What a module says of an image as a whole."""

    classes: list[int]
    """All classes, the likeliest first."""
    probabilities: list[float]
    """Of these classes, in the same order."""
    chosen: list[int]
    """The classes that the image is said to belong to, the likeliest first."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """What is scored on one class."""

    name: str
    """The class."""

    images: int
    """Test images that belong to it."""

    recall: float
    """Share of them that are recognised."""

    precision: float
    """Share of the images said to belong to it that do."""

    f1: float
    """Harmonic mean of both."""


@runtime_checkable
class Score(Protocol):
    """A score: a spec, written to `results.json`."""

    measure: ClassVar[str]
    """What `value` is, such as top-1."""

    @property
    def value(self) -> float:
        """The figure that comparisons use, between 0 and 1; higher is better."""
        ...

    @property
    def chance(self) -> float:
        """What guessing would give."""
        ...

    @property
    def images(self) -> int:
        """Images tested on."""
        ...

    def line(self) -> str:
        """The score in a line."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """A score in the making. It is picklable, so that several processes can put theirs together."""

    def add(self, outputs: Any, truth: Annotations) -> None:
        """Take the outputs for the images of a batch, and what is known of them."""
        ...

    def merged(self, parts: Sequence[Any]) -> "Scoring":
        """One scoring of all that these have taken."""
        ...

    def result(self) -> Score:
        """The score of all that was taken."""
        ...


@runtime_checkable
class Task(Protocol):
    """The spec of a task. A new one is a file with these methods, and one line in `tasks.AnyTask`."""

    @property
    def needs(self) -> type:
        """The class of annotations that it learns from."""
        ...

    @property
    def holds_out(self) -> float:
        """Share of the training images kept for choosing thresholds; 0 where there are none to choose."""
        ...

    def check(self, depth: int) -> None:
        """Refuse an encoder of so many blocks, if it will not do."""
        ...

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> nn.Module:
        """The module to train: a `Trainable` with `encoder` and `predict(images)`."""
        ...

    def scoring(
        self, annotations: AnyAnnotations, thresholds: tuple[float, ...] | None = None
    ) -> Scoring:
        """An empty score."""
        ...

    def thresholds(self, outputs: Any, truth: Annotations) -> tuple[float, ...] | None:
        """Thresholds chosen on held-out training images; None where there are none to choose."""
        ...

    def predictions(
        self, outputs: Any, thresholds: tuple[float, ...] | None = None
    ) -> list[Prediction]:
        """What the outputs say of each image."""
        ...


def likeliest(probabilities: Float[Tensor, "b classes"]) -> Iterator[tuple[list[int], list[float]]]:
    """All classes of each image by falling probability, and these probabilities."""
    ordered = probabilities.sort(dim=1, descending=True, stable=True)
    yield from zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True)
