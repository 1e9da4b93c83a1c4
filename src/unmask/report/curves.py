"""The log of a run in bounded memory, for curves."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from unmask.runs.course import ENDS

CURVES = ("loss", "learning_rate", "images_per_second", "waiting")
"""The fields of every line that become curves."""

_MOST = 400
"""Buckets of a curve, about one for each pixel of a drawing."""


@dataclass
class Bucket:
    """Some consecutive steps."""

    first: float
    last: float
    count: int = 0
    sums: dict[str, float] = field(default_factory=dict[str, float])
    low: float = math.inf
    high: float = -math.inf
    """The lowest and the highest loss."""

    def mean(self, name: str) -> float | None:
        """The mean of a field over the steps; None where the lines lack it."""
        return self.sums[name] / self.count if name in self.sums else None


class Curves:
    """The lines of a log, averaged over as many consecutive steps as it takes to have at most 400 points.

    Adding lines one by one or all at once gives the same, so that the report of a resumed run is that of an uninterrupted one.
    """

    def __init__(self, lines: Iterable[dict[str, float]] = ()) -> None:
        self.buckets: list[Bucket] = []
        self.checks: list[dict[str, float]] = []
        """The lines with a check of the embedding, about ten a run."""
        self.step = 0
        self.diverged: int | None = None
        """The first step whose loss is not finite."""
        self.ends: int | None = None
        """The last step, as decided again during a run with a time."""
        self._width = 1
        self.add(lines)

    def add(self, lines: Iterable[dict[str, float]]) -> None:
        """Add lines in the order of their steps."""
        for line in lines:
            self._add(line)

    def _add(self, line: dict[str, float]) -> None:
        self.step = int(line["step"])
        if "effective_rank" in line:
            self.checks.append(line)
        if ENDS in line:
            self.ends = int(line[ENDS])
        if not math.isfinite(line["loss"]):
            self.diverged = self.diverged or self.step
            return
        while (place := (self.step - 1) // self._width) >= _MOST:
            self._halve()
        if not self.buckets or (self.buckets[-1].last - 1) // self._width != place:
            self.buckets.append(Bucket(self.step, self.step))
        bucket = self.buckets[-1]
        bucket.last, bucket.count = self.step, bucket.count + 1
        bucket.low, bucket.high = min(bucket.low, line["loss"]), max(bucket.high, line["loss"])
        for name in CURVES:
            if name in line:
                bucket.sums[name] = bucket.sums.get(name, 0.0) + line[name]

    def _halve(self) -> None:
        """Join neighbouring buckets, so that each holds twice as many steps."""
        self._width *= 2
        joined: list[Bucket] = []
        for bucket in self.buckets:
            before = joined[-1] if joined else None
            if (
                before is None
                or (before.last - 1) // self._width != (bucket.last - 1) // self._width
            ):
                joined.append(bucket)
                continue
            before.last, before.count = bucket.last, before.count + bucket.count
            before.low, before.high = min(before.low, bucket.low), max(before.high, bucket.high)
            before.sums = {
                name: before.sums.get(name, 0.0) + bucket.sums.get(name, 0.0)
                for name in before.sums | bucket.sums
            }
        self.buckets = joined

    def points(self, name: str) -> list[tuple[float, float]]:
        """(step, mean) of a field, at the middle of each bucket."""
        means = [((bucket.first + bucket.last) / 2, bucket.mean(name)) for bucket in self.buckets]
        return [(step, mean) for step, mean in means if mean is not None]

    def mean(self, name: str, start: float = 0.0, end: float = 1.0) -> float | None:
        """The mean of a field over a part of the steps, such as 0.9 to 1 for the last tenth; None without any."""
        part = [
            bucket
            for bucket in self.buckets
            if start * self.step < bucket.last and bucket.first <= max(1, end * self.step)
        ]
        count = sum(bucket.count for bucket in part if name in bucket.sums)
        return sum(bucket.sums.get(name, 0.0) for bucket in part) / count if count else None
