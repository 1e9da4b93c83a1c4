"""Scores of detection: average precisions of boxes and of masks, of all classes and of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from unmask.measures import Baseline, Measure, ScoreTable


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Average precisions; null where there are no such objects."""

    ap: float | None
    """Mean over the overlaps 0.50, 0.55 to 0.95."""

    ap50: float | None
    """At an overlap of 0.5."""

    ap75: float | None
    """At an overlap of 0.75."""

    small: float | None
    """As `ap`, for objects of less than 32 x 32 pixels."""

    medium: float | None
    """As `ap`, for objects from 32 x 32 to 96 x 96 pixels."""

    large: float | None
    """As `ap`, for objects of more than 96 x 96 pixels."""


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """The scores of one class."""

    name: str
    """Name of the class."""

    objects: int
    """Number of its objects in the test images, without crowds."""

    box: Precision
    """Average precisions of boxes."""

    mask: Precision | None
    """Average precisions of masks; null where masks are not known."""


@dataclass(frozen=True, kw_only=True)
class DetectionScore:
    """The scores of a detector of boxes, or of boxes and masks."""

    box: Precision
    """Average precisions of boxes, over all classes."""

    mask: Precision | None = None
    """Average precisions of masks, over all classes; null where masks are not known."""

    images: int
    """Number of test images."""

    objects: int
    """Number of their objects, without crowds."""

    classes: tuple[ClassPrecision, ...]
    """The scores of each class."""

    chance: float = 0.0
    """Average precision of what is found at random."""

    @property
    def measure(self) -> str:
        """Name of the metric in `value`."""
        return "box AP" if self.mask is None else "mask AP"

    @property
    def value(self) -> float:
        """The metric for comparisons."""
        return (self.mask or self.box).ap or 0.0

    def measures(self) -> tuple[Measure, ...]:
        """Average precisions of masks, then of boxes."""
        masks = () if self.mask is None else _measures("mask", self.mask)
        return (*masks, *_measures("box", self.box), *_counts(self))

    def line(self) -> str:
        """The score in one line."""
        masks = "" if self.mask is None else f"mask {_in_words(self.mask)}; "
        return f"{masks}box {_in_words(self.box)}, on {self.images:,} images with {self.objects:,} objects"

    def table(self) -> ScoreTable:
        """The scores of each class."""
        return _table(self.classes)


def _in_words(precision: Precision) -> str:
    """For example "AP 41.20% (AP50 63.10%, AP75 44.00%)"."""
    ap, ap50, ap75 = (
        "undefined" if value is None else f"{value:.2%}"
        for value in (precision.ap, precision.ap50, precision.ap75)
    )
    return f"AP {ap} (AP50 {ap50}, AP75 {ap75})"


def _measures(part: str, precision: Precision) -> tuple[Measure, ...]:
    """The average precisions of boxes or of masks."""
    return (
        Measure(f"{part} AP", precision.ap, baseline=Baseline("found at random", 0.0)),
        Measure(f"{part} AP50", precision.ap50),
        Measure(f"{part} AP75", precision.ap75),
        Measure(f"{part} AP small", precision.small),
        Measure(f"{part} AP medium", precision.medium),
        Measure(f"{part} AP large", precision.large),
    )


def _counts(score: DetectionScore) -> tuple[Measure, ...]:
    counts = {"test images": score.images, "test objects": score.objects}
    return tuple(Measure(name, count, "count", None) for name, count in counts.items())


def _table(classes: Sequence[ClassPrecision]) -> ScoreTable:
    """Average precisions of each class, of masks first, where they are known."""
    parts = ("mask", "box") if any(one.mask for one in classes) else ("box",)
    kinds = ("AP", "AP50", "AP75")
    headings = ("class", "objects", *(f"{part} {kind}" for part in parts for kind in kinds))
    rows = tuple(
        (one.name, one.objects, *(score for part in parts for score in _of_class(one, part)))
        for one in classes
    )
    return ScoreTable(headings, rows, described=2, ranked_by=f"{parts[0]} AP")


def _of_class(one: ClassPrecision, part: str) -> tuple[float | None, ...]:
    precision = one.mask if part == "mask" else one.box
    return (None,) * 3 if precision is None else (precision.ap, precision.ap50, precision.ap75)
