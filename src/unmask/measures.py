"""The measures of a score, each with unit and direction, and the table of its classes: what console, report and trackers show."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

Unit = Literal["share", "dB", "codes", "count"]
"""A share between 0 and 1, decibels, an effective number of codes, or a number of things."""

Cell = str | int | float | None
"""A cell of a table: text, a number of things, a share between 0 and 1, or None where the share is not defined."""


class Baseline(NamedTuple):
    """The value of a measure without a trained model."""

    words: str
    """What has this value, such as "largest class"."""
    value: float


class Measure(NamedTuple):
    """A measure and its value."""

    name: str
    """Its usual name, such as mIoU."""
    value: float | None
    """None where it is not defined."""
    unit: Unit = "share"
    better: Literal["higher", "lower"] | None = "higher"
    """Which values are better; None for numbers of things, which are not good or bad."""
    baseline: Baseline | None = None

    @property
    def words(self) -> str:
        """The value in words."""
        return in_unit(self.value, self.unit)

    @property
    def baseline_words(self) -> str:
        """The baseline and its value in words; empty without one."""
        if self.baseline is None:
            return ""
        return f"{self.baseline.words} {in_unit(self.baseline.value, self.unit)}"

    def beats(self, value: float) -> bool:
        """Whether its value is better than another one; a value that is not defined is not."""
        if self.value is None:
            return False
        return self.value < value if self.better == "lower" else self.value > value


@runtime_checkable
class Scored(Protocol):
    """A score of a run: a spec, so that it can be read again from `results.json`."""

    def measures(self) -> tuple[Measure, ...]:
        """All measures and numbers, the main one first."""
        ...


class ScoreTable(NamedTuple):
    """The scores of each class, a row for each."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    described: int
    """Number of columns that describe a class (its name, its images); the others are scores."""
    ranked_by: str
    """The score by which the weakest classes are found."""

    def weakest(self, most: int) -> list[tuple[Cell, ...]]:
        """So many rows with the lowest scores, in the order of the table; classes without a score come last."""
        column = self.headings.index(self.ranked_by)
        scores = [row[column] for row in self.rows]
        order = sorted(range(len(scores)), key=lambda row: _rank(scores[row]))
        return [self.rows[row] for row in sorted(order[:most])]

    def mean(self) -> tuple[Cell, ...]:
        """A row with the mean of each score over the classes for which it is defined, and with sums of numbers."""
        return tuple(self._means())

    def _means(self) -> Iterator[Cell]:
        for place, column in enumerate(zip(*self.rows, strict=True)):
            numbers = [cell for cell in column if isinstance(cell, int | float)]
            if place == 0:
                yield "mean of classes"
            elif place >= self.described:
                yield sum(numbers) / len(numbers) if numbers else None
            elif all(isinstance(cell, int) for cell in column):
                yield sum(numbers)
            else:
                yield ""


def _rank(score: Cell) -> float:
    return score if isinstance(score, int | float) else float("inf")


def cell_words(cell: Cell) -> str:
    """A cell in words; "-" where a share is not defined."""
    if isinstance(cell, str):
        return cell
    return in_unit(cell, "count" if isinstance(cell, int) else "share", "-")


def in_unit(value: float | None, unit: Unit, undefined: str = "not defined") -> str:
    """A value with its unit."""
    if value is None:
        return undefined
    match unit:
        case "share":
            return f"{value:.1%}"
        case "dB":
            return f"{value:.2f} dB"
        case "codes":
            return f"{value:,.1f}"
        case "count":
            return f"{value:,.0f}"
