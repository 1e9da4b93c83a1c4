"""Outlines of objects, as polygons or run lengths, in flat arrays that forked loading processes share without copying.

Polygons become pixels as in the COCO API (Lin and others, 2014): corners are rounded to fifths of a pixel, and a pixel belongs
to a polygon if its middle does. Run lengths count pixels column by column, beginning with those outside.
"""

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from unmask.contracts import Size

SCALE = 5
"""Steps per pixel to which COCO rounds corners."""

LEAST_CORNERS = 3
_FAR = 2**20  # pixels; farther corners would only cost memory
_NONE, _POLYGONS, _RUNS = 0, 1, 2


class Outlines(NamedTuple):
    """The outlines of objects."""

    form: NDArray[np.int8]
    """Whether an object has no outline (0), polygons (1) or run lengths (2)."""
    first: NDArray[np.int64]
    """The first part of each object: of polygons, or of run lengths."""
    parts: NDArray[np.int32]
    """How many polygons an object has."""
    ends: NDArray[np.int64]
    """Where each polygon ends in `corners`; the first begins at 0."""
    corners: NDArray[np.float32] | NDArray[np.int32]
    """x, y, x, y ...: in fifths of a pixel, int32; or as shares of the picture's width and height, float32."""
    run_ends: NDArray[np.int64]
    """Where the run lengths of each object end in `runs`."""
    runs: NDArray[np.uint32]
    run_heights: NDArray[np.int32]
    """The height of the picture that the run lengths of each object are for."""

    def rows(self, chosen: NDArray[np.int64]) -> "Outlines":
        """The outlines of some objects."""
        return self._replace(
            form=self.form[chosen], first=self.first[chosen], parts=self.parts[chosen]
        )

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which objects have an outline."""
        return self.form != _NONE

    def misfits(self, heights: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which run lengths are for pictures of other heights than these, of each object; 0 where it is not known."""
        runs = self.form == _RUNS
        wrong = np.zeros(len(self.form), dtype=bool)
        wrong[runs] = self.run_heights[self.first[runs]] != heights[runs]
        return wrong & (heights > 0)

    def without(self, removed: NDArray[np.bool_]) -> "Outlines":
        """The outlines without those of some objects."""
        return self._replace(form=np.where(removed, np.int8(_NONE), self.form))

    def mask(self, number: int, size: Size) -> Bool[NDArray[np.bool_], "h w"] | None:
        """The pixels of an object in a picture of this size; None if its outline is not known, or of another size."""
        form, first = int(self.form[number]), int(self.first[number])
        if form == _RUNS:
            runs = self.runs[_begin(self.run_ends, first) : self.run_ends[first]]
            fits = self.run_heights[first] == size.height
            return run_mask(runs, size) if fits and runs.sum() == size.height * size.width else None
        if form == _NONE:
            return None
        mask = np.zeros(size, dtype=bool)
        for part in range(first, first + int(self.parts[number])):
            corners = self.corners[_begin(self.ends, part) : self.ends[part]].reshape(-1, 2)
            if corners.dtype != np.int32:
                corners = in_fifths(corners.astype(np.float64) * [size.width, size.height])
            mask |= polygon_mask(corners, size)
        return mask


def _begin(ends: NDArray[np.int64], number: int) -> int:
    return int(ends[number - 1]) if number else 0


class OutlineWriter:
    """Collects the outlines of objects, one object after the other."""

    def __init__(self, *, relative: bool = False) -> None:
        """`relative` says that corners are shares of the picture's width and height, not pixels."""
        self._relative = relative
        self._form, self._first, self._parts = array("b"), array("q"), array("i")
        self._ends, self._run_ends, self._runs = array("q"), array("q"), array("I")
        self._corners = array("f" if relative else "i")
        self._run_heights = array("i")

    def nothing(self) -> None:
        """Add an object without an outline."""
        self._add(_NONE, 0, 0)

    def polygons(self, polygons: Sequence[Float[NDArray[np.float64], "_ 2"]]) -> None:
        """Add an object of these polygons; raises ValueError if there is none."""
        if not polygons:
            raise ValueError("no polygon")
        self._add(_POLYGONS, len(self._ends), len(polygons))
        for corners in polygons:
            kept = corners.astype(np.float32) if self._relative else in_fifths(corners)
            self._corners.frombytes(kept.tobytes())
            self._ends.append(len(self._corners))

    def run_lengths(self, runs: NDArray[np.uint32], size: Size) -> None:
        """Add an object of these run lengths, for a picture of this size."""
        self._add(_RUNS, len(self._run_ends), 1)
        self._runs.frombytes(runs.astype(np.uint32).tobytes())
        self._run_ends.append(len(self._runs))
        self._run_heights.append(size.height)

    def _add(self, form: int, first: int, parts: int) -> None:
        self._form.append(form)
        self._first.append(first)
        self._parts.append(parts)

    def written(self) -> Outlines | None:
        """The outlines of all objects; None if no object has one."""
        if not any(self._form):
            return None
        return Outlines(
            form=np.array(self._form, np.int8),
            first=np.array(self._first, np.int64),
            parts=np.array(self._parts, np.int32),
            ends=np.array(self._ends, np.int64),
            corners=np.array(self._corners, np.float32)
            if self._relative
            else np.array(self._corners, np.int32),
            run_ends=np.array(self._run_ends, np.int64),
            runs=np.array(self._runs, np.uint32),
            run_heights=np.array(self._run_heights, np.int32),
        )


def usable(corners: Float[NDArray[np.float64], "corners 2"]) -> bool:
    """Whether corners are at least three, finite, and not absurdly far away."""
    return len(corners) >= LEAST_CORNERS and bool((np.abs(corners) < _FAR).all())  # False for NaN


def in_fifths(corners: Float[NDArray[np.float64], "corners 2"]) -> Int[NDArray[Any], "corners 2"]:
    """Corners in fifths of a pixel, rounded as the COCO API rounds."""
    return (SCALE * corners + 0.5).astype(np.int32)


def polygon_mask(
    corners: Int[NDArray[Any], "corners 2"], size: Size
) -> Bool[NDArray[np.bool_], "h w"]:
    """The pixels of a polygon whose corners are in fifths of a pixel; bit for bit those of the COCO API.

    Its boundary is drawn in fifths of a pixel. Where that crosses the middle of a column, pixels below change sides.
    """
    ends = np.roll(corners, -1, axis=0).astype(np.int64)
    x, y = _boundary(corners.astype(np.int64), ends)
    turns = np.flatnonzero(x[1:] != x[:-1])
    # the middle of a column: a step between two fifths, of which the left one is 5 column + 2
    left = np.minimum(x[turns], x[turns + 1])
    column = (left + 0.5) / SCALE - 0.5
    row = np.ceil(np.clip((np.minimum(y[turns], y[turns + 1]) + 0.5) / SCALE - 0.5, 0, size.height))
    inside = (column == np.floor(column)) & (column >= 0) & (column <= size.width - 1)
    mask = np.zeros(size, dtype=bool)
    if not inside.any():
        return mask
    column, row = column[inside].astype(np.int64), row[inside].astype(np.int64)
    first, last = int(column.min()), int(column.max()) + 1
    places = np.sort((column - first) * size.height + row)
    pixels = (last - first) * size.height
    runs = np.diff(places, prepend=0, append=pixels)
    within = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[:, first:last] = within.reshape(last - first, size.height).T
    return mask


def _boundary(
    begins: Int[NDArray[Any], "corners 2"], ends: Int[NDArray[Any], "corners 2"]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """x and y of the points of all edges, in order: one for each step of the longer axis of an edge, both ends included."""
    along = np.abs(ends - begins)
    flat = along[:, 0] >= along[:, 1]
    steps = along.max(1)
    # the API draws each edge from its lower end, and turns the points round afterwards
    longer = np.where(flat, 0, 1)
    pick = np.arange(len(begins))
    is_turned = begins[pick, longer] > ends[pick, longer]
    low = np.where(is_turned[:, None], ends, begins)
    high = np.where(is_turned[:, None], begins, ends)
    slope = (high - low)[pick, 1 - longer] / np.maximum(steps, 1)
    edge = np.repeat(pick, steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
    step = np.where(is_turned[edge], steps[edge] - step, step)
    main = step + low[edge, longer[edge]]
    other = np.trunc(low[edge, 1 - longer[edge]] + slope[edge] * step + 0.5).astype(np.int64)
    return np.where(flat[edge], main, other), np.where(flat[edge], other, main)


def run_mask(runs: NDArray[np.uint32], size: Size) -> Bool[NDArray[np.bool_], "h w"]:
    """The pixels of run lengths, whose sum must be that of the pixels."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size.width, size.height).T


def box_of_runs(runs: NDArray[np.uint32], size: Size) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of the pixels of run lengths; None if there are none."""
    ends = np.cumsum(runs, dtype=np.int64)
    first, last = ends[:-1:2], ends[1::2] - 1
    first, last = (places[last >= first] for places in (first, last))
    if not len(first):
        return None
    columns = first // size.height, last // size.height
    left, right = float(columns[0].min()), float(columns[1].max() + 1)
    if (columns[0] < columns[1]).any():  # a run over the end of a column touches both its ends
        return left, 0.0, right, float(size.height)
    return left, float((first % size.height).min()), right, float((last % size.height).max() + 1)


def run_lengths(counts: Any, size: Size) -> NDArray[np.uint32] | None:
    """The run lengths that COCO states as a list or as a compressed string; None if they do not fill the size."""
    try:
        if isinstance(counts, str | bytes):
            text = counts.encode("ascii") if isinstance(counts, str) else counts
            runs = _decompressed(text)
        else:
            runs = np.array(counts, dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        return None
    fits = runs.ndim == 1 and len(runs) and runs.min() >= 0
    return runs.astype(np.uint32) if fits and runs.sum() == size.height * size.width else None


def _decompressed(text: bytes) -> NDArray[np.int64]:
    """Run lengths of COCO's string: five bits a character, of the difference to the length before the last.

    Raises:
        ValueError: if it ends within a number.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (codes & 0x20) == 0
    if not len(codes) or not last[-1]:
        raise ValueError("cut off")
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1])
    if (ends - begins).max() > 11:
        raise ValueError("a number of more than 60 bits")
    number = np.cumsum(last) - last
    shift = 5 * (np.arange(len(codes)) - begins[number])
    values = np.zeros(len(ends), np.int64)
    np.add.at(values, number, (codes & 0x1F) << shift)
    is_negative = (codes[ends] & 0x10) != 0
    values -= np.where(is_negative, 1 << (shift[ends] + 5), 0)
    for start in (1, 2):
        values[start::2] = np.cumsum(values[start::2])
    return values


def box_of(mask: Bool[NDArray[np.bool_], "h w"]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the pixels of a mask; None if there are none."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
