"""What was found in dense annotations, in a few lines that are printed before anything runs."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from unmask.errors import listed

_NAMED = 8
"""Classes that are named with their numbers."""


class Odd(NamedTuple):
    """Annotations that are not used as they are."""

    what: str
    """What was done with them and why, to follow their number: "boxes clipped to their picture"."""
    number: int
    first: str
    """Where the first one is."""


class Found(NamedTuple):
    """What the annotations of a source hold."""

    unit: Literal["objects", "pixels"]
    pictures: int
    names: tuple[str, ...]
    """The classes, in the order of their numbers."""
    counts: tuple[float, ...]
    """Objects of each class, or its share of the labelled pixels that were looked at."""
    empty: int = 0
    """Pictures without an object."""
    ignored: float = 0.0
    """Share of ignored pixels, or number of objects that are neither learned nor scored, such as crowds."""
    looked_at: int = 0
    """Maps of classes or of objects that the numbers come from; 0 if they are of all pictures."""
    odd: tuple[Odd, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """The same in words, a line each."""
        first = self._objects() if self.unit == "objects" else self._pixels()
        odd = (f"{odd.number:,} {odd.what}, the first in {odd.first}" for odd in self.odd)
        return (*first, *self._absent(), *odd)

    @property
    def _all(self) -> bool:
        """Whether the numbers are of all pictures."""
        return self.looked_at in (0, self.pictures)

    def _objects(self) -> list[str]:
        total = int(sum(self.counts))
        where = (
            f"{self.pictures:,} pictures"
            if self._all
            else f"{self.looked_at:,} of {self.pictures:,} pictures"
        )
        lines = [f"{total:,} objects in {where}: {self._largest('{:,.0f}'.format)}"]
        if self.ignored:
            lines.append(
                f"{self.ignored:,.0f} more are crowds or difficult, and are neither learned nor scored"
            )
        if self.empty:
            lines.append(f"{self.empty:,} pictures have no objects, and are learned as such")
        return lines

    def _pixels(self) -> list[str]:
        looked = "all" if self._all else f"{self.looked_at:,} of {self.pictures:,} evenly spaced"
        return [
            f"pixels in {looked} class maps: {self._largest('{:.1%}'.format)}; {self.ignored:.1%} of all are ignored"
        ]

    def _largest(self, words: Callable[[float], str]) -> str:
        """The most frequent classes with their numbers."""
        order = np.argsort([-count for count in self.counts], kind="stable").tolist()
        there = [number for number in order if self.counts[number]]
        return listed([f"{self.names[i]} {words(self.counts[i])}" for i in there], _NAMED) or "none"

    def _absent(self) -> list[str]:
        """The classes that no picture shows."""
        absent = [name for name, count in zip(self.names, self.counts, strict=True) if not count]
        if not absent:
            return []
        where = "" if self._all else " in these"
        return [f"no {self.unit}{where} of {listed(absent, _NAMED)}"]


class Oddities:
    """Counts annotations that are not used as they are, by what was done with them."""

    def __init__(self) -> None:
        self._odd: dict[str, tuple[int, str]] = {}

    def add(self, what: str, first: str, count: int = 1) -> None:
        """Count some of them."""
        before, earliest = self._odd.get(what, (0, first))
        self._odd[what] = before + count, earliest

    def all(self) -> tuple[Odd, ...]:
        """All of them, in the order in which they were met."""
        return tuple(Odd(what, count, first) for what, (count, first) in self._odd.items())
