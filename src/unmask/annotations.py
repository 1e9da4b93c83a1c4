"""What is known of an image besides its pixels, and how a source says which kind of it there is.

| kind | of one image | of a batch |
|---|---|---|
| `Unlabelled` | `None` | `None` |
| `ClassLabels` | class, int64 []; -1 if unknown | int64 [b] |
| `MultiLabels` | 0 or 1 for each class, float32 [classes]; -1 in all if unknown | float32 [b classes] |
| `ClassMaps` | class of each pixel, int64 [h w] | int64 [b h w] |
| `ObjectLabels` | `Objects` | a tuple of `Objects` |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unmask.errors import SettingsError
from unmask.spec import Kind

UNKNOWN = -1
"""The class of an image whose class is not known."""


class Objects(NamedTuple):
    """The objects in an image."""

    boxes: Float[Tensor, "n 4"]
    """Left, top, right and bottom in pixels, counted from the image's upper left corner."""
    classes: Int[Tensor, " n"]
    masks: Bool[Tensor, "n h w"] | None = None
    """Which pixels belong to each object; None where only boxes are known."""
    crowd: Bool[Tensor, " n"] | None = None
    """Which of them count neither for nor against in scores and are never learned from, such as crowds; None for none."""

    def rows(self, chosen: Bool[Tensor, " n"]) -> "Objects":
        """Some of the objects."""
        masks = None if self.masks is None else self.masks[chosen]
        crowd = None if self.crowd is None else self.crowd[chosen]
        return Objects(self.boxes[chosen], self.classes[chosen], masks, crowd)


Annotation = Tensor | Objects | None
"""What is known of one image; the table above says which type each kind has."""

Annotations = Tensor | tuple[Objects, ...] | None
"""What is known of the images of a batch."""


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """Nothing is known but the pixels."""

    @property
    def names(self) -> tuple[str, ...]:
        """There are no classes."""
        return ()

    def collate(self, annotations: Sequence[Annotation]) -> Annotations:
        """None: there is nothing to put together."""
        return None


@dataclass(frozen=True, kw_only=True)
class ClassLabels:
    """Each image belongs to one class."""

    names: tuple[str, ...]
    """The classes, in the order of their numbers."""

    def collate(self, annotations: Sequence[Annotation]) -> Annotations:
        """The class of each image, int64 [b]."""
        return _stacked(annotations)


@dataclass(frozen=True, kw_only=True)
class MultiLabels:
    """Each image belongs to any number of classes."""

    names: tuple[str, ...]
    """The classes, in the order of their numbers."""

    def collate(self, annotations: Sequence[Annotation]) -> Annotations:
        """0 or 1 for each class of each image, float32 [b classes]."""
        return _stacked(annotations)


@dataclass(frozen=True, kw_only=True)
class ClassMaps:
    """Each pixel belongs to a class."""

    names: tuple[str, ...]
    """The classes, in the order of their numbers."""

    ignored: int = 255
    """The number of pixels that count neither in training nor in scores."""

    def collate(self, annotations: Sequence[Annotation]) -> Annotations:
        """The class of each pixel, int64 [b h w]; smaller maps are padded with the ignored number."""
        maps = [map_ for map_ in annotations if isinstance(map_, Tensor)]
        height, width = (max(map_.shape[axis] for map_ in maps) for axis in (0, 1))
        padded = torch.full((len(maps), height, width), self.ignored)
        for row, map_ in zip(padded, maps, strict=True):
            row[: map_.shape[0], : map_.shape[1]] = map_
        return padded


@dataclass(frozen=True, kw_only=True)
class ObjectLabels:
    """Boxes around the objects in each image, with their classes."""

    names: tuple[str, ...]
    """The classes, in the order of their numbers."""

    masks: bool = False
    """Whether the pixels of each object are known too."""

    def collate(self, annotations: Sequence[Annotation]) -> Annotations:
        """The objects of each image."""
        return tuple(objects for objects in annotations if isinstance(objects, Objects))


AnyAnnotations = (
    Annotated[Unlabelled, Kind("none")]
    | Annotated[ClassLabels, Kind("class")]
    | Annotated[MultiLabels, Kind("classes")]
    | Annotated[ClassMaps, Kind("map")]
    | Annotated[ObjectLabels, Kind("objects")]
)
"""What a source may know of its images."""


def _stacked(annotations: Sequence[Annotation]) -> Tensor:
    return torch.stack([label for label in annotations if isinstance(label, Tensor)])


DENSE = (ClassMaps, ObjectLabels)
"""The kinds of annotations that say where in the image something is."""


def is_dense(kind: AnyAnnotations) -> bool:
    """Whether annotations say where in the image something is, so that crops must move them too."""
    return isinstance(kind, DENSE)


def has_classes(kind: AnyAnnotations) -> bool:
    """Whether annotations say to which of several classes a whole image belongs."""
    return not is_dense(kind) and len(kind.names) > 1


def whole_image_only(
    kind: AnyAnnotations, what: str, remedy: str = "use the original images"
) -> None:
    """Raises SettingsError, with the remedy, for annotations that say where in the image something is."""
    if is_dense(kind):
        raise SettingsError(f"{what} cannot carry {dense_words(kind)} yet; {remedy}")


def dense_words(kind: AnyAnnotations) -> str:
    """What annotations that say where something is are called in messages."""
    if isinstance(kind, ClassMaps):
        return "class maps"
    return "boxes and masks" if isinstance(kind, ObjectLabels) and kind.masks else "boxes"


def annotated_words(kind: AnyAnnotations) -> str:
    """What is known of images, to follow their number: "of 3 classes", "with class maps of 3 classes"."""
    classes = f"of {len(kind.names)} classes"
    return f"with {dense_words(kind)} {classes}" if is_dense(kind) else classes


def nested_map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same nest of tuples with the function applied to every tensor in it."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        mapped = (nested_map(function, part) for part in value)
        return type(value)(*mapped) if hasattr(value, "_fields") else tuple(mapped)
    return value
