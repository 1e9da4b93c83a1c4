"""The objects of all pictures of a data set, in flat arrays that forked loading processes share without copying.

A box is 16 bytes, its class and marks 13 more; a corner of an outline is 8.
"""

import hashlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from unmask.annotations import ObjectLabels, Objects
from unmask.contracts import Size
from unmask.data.found import Found, Odd, Oddities
from unmask.data.frames import UPRIGHT, Turned, turn_of, turned_boxes, turned_pixels
from unmask.data.outlines import Outlines, OutlineWriter
from unmask.errors import DataError

OUTSIDE = "boxes dropped, because they lie outside of their picture"
"""What is said of such boxes, to follow their number."""

_ROUNDING = 0.05  # pixels that a box may reach over the edge without being counted as clipped
_RELATIVE_ROUNDING = 1e-4  # the same in shares of the width or height
_MOST_WITHOUT = 0.5  # share of objects without an outline, above which masks are not used


@dataclass(frozen=True, kw_only=True)
class ObjectTable:
    """Objects, sorted by picture."""

    kind: ObjectLabels
    """The classes, and whether there are masks."""
    what: str
    """Where the boxes come from, to follow "the picture has 2 x 3 pixels, and"."""
    starts: NDArray[np.int64]
    """The first object of each picture, and the number of all objects, [n + 1]."""
    boxes: Float[NDArray[np.float32], "m 4"]
    """Left, top, right, bottom: in pixels of the frame, or as shares of width and height."""
    classes: NDArray[np.int32]
    """The class of each object."""
    crowd: NDArray[np.bool_]
    """Which objects are crowds."""
    frames: NDArray[np.int32]
    """Height and width of the frame that boxes are drawn in, [n 2]; 0 for the picture as displayed."""
    relative: bool
    """Whether boxes and corners are shares of the frame's width and height."""
    outlines: Outlines | None
    """The outlines of the objects; None if masks are not used."""
    odd: tuple[Odd, ...]
    """What was left out or changed."""

    def of(self, row: int, shown: Size, orientation: Callable[[], int]) -> Objects:
        """The objects of a picture that is displayed in size `shown`; `orientation` looks up EXIF's.

        Boxes are clipped to the picture, and those outside of it are left out.

        Raises:
            DataError: if the file states another size for the picture.
        """
        frame, turned = self.frame(row), Turned(UPRIGHT, shown)
        if frame is not None and frame != shown:
            turned = turn_of(frame, shown, orientation(), self.what)
        rows = self._rows(row)
        boxes, limits = self.boxes[rows], _limits(shown)
        if self.relative:
            boxes = boxes * limits
        inside = np.clip(turned_boxes(boxes, turned), 0, limits)
        has_extent = _has_extent(inside)
        rows, boxes, inside = rows[has_extent], boxes[has_extent], inside[has_extent]
        masks = self._masks(rows, boxes, turned) if self.kind.masks else None
        crowd = self.crowd[rows]
        return Objects(
            torch.from_numpy(inside),
            torch.from_numpy(self.classes[rows].astype(np.int64)),
            None if masks is None else torch.from_numpy(masks),
            torch.from_numpy(crowd) if crowd.any() else None,
        )

    def outside(self, row: int, shown: Size) -> int:
        """How many objects lie outside of a picture whose size the file does not state."""
        if self.relative or self.frame(row) is not None:
            return 0  # left out where the table was made
        inside = np.clip(self.boxes[self._rows(row)], 0, _limits(shown))
        return int((~_has_extent(inside)).sum())

    def _rows(self, row: int) -> NDArray[np.int64]:
        """The objects of a picture."""
        return np.arange(self.starts[row], self.starts[row + 1])

    def frame(self, row: int) -> Size | None:
        """The size of the frame that a picture's boxes are drawn in; None for the picture as displayed."""
        height, width = self.frames[row].tolist()
        return Size(height, width) if height and width else None

    def _masks(
        self, rows: NDArray[np.int64], boxes: Float[NDArray[np.float32], "n 4"], turned: Turned
    ) -> Bool[NDArray[np.bool_], "n h w"]:
        """The masks of some objects, as displayed; where an outline is not known, the box."""
        assert self.outlines is not None
        masks: list[NDArray[np.bool_]] = []
        for number, box in zip(rows.tolist(), boxes, strict=True):
            mask = self.outlines.mask(number, turned.stored)
            if mask is None and self.outlines.known[number]:
                raise DataError("the outline of an object is for a picture of another size")
            mask = _box_mask(box, turned.stored) if mask is None else mask
            masks.append(turned_pixels(mask, turned))
        if masks:
            return np.stack(masks)
        return np.zeros((0, *turned_pixels(np.zeros(turned.stored, bool), turned).shape), bool)

    @property
    def mark(self) -> str:
        """A hash of the annotations."""
        parts = (self.starts, self.boxes, self.classes, self.crowd, self.frames)
        digest = hashlib.sha256(repr((self.kind, self.relative)).encode())
        for part in (*parts, *(self.outlines or ())):
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()[:16]

    def found(self, rows: NDArray[np.int64]) -> Found:
        """What the pictures of these rows have."""
        picture = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        there = np.isin(picture, rows)
        count = np.bincount(self.classes[there & ~self.crowd], minlength=len(self.kind.names))
        return Found(
            "objects",
            len(rows),
            self.kind.names,
            tuple(count.tolist()),
            empty=int((np.diff(self.starts)[rows] == 0).sum()),
            ignored=int((there & self.crowd).sum()),
            odd=self.odd,
        )

    def present(self, rows: NDArray[np.int64]) -> Bool[NDArray[np.bool_], "n classes"]:
        """Which classes each picture shows."""
        table = np.zeros((len(self.starts) - 1, len(self.kind.names)), dtype=bool)
        picture = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        table[picture[~self.crowd], self.classes[~self.crowd]] = True
        return table[rows]

    def with_kind(self, kind: ObjectLabels) -> "ObjectTable":
        """The same objects with the classes of another kind, which has all of them, by name."""
        place = {name: number for number, name in enumerate(kind.names)}
        numbers = np.array([place[name] for name in self.kind.names], np.int32)
        masks = kind.masks and self.kind.masks
        classes = numbers[self.classes] if len(numbers) else self.classes
        return replace(self, kind=replace(kind, masks=masks), classes=classes)


def _limits(shown: Size) -> Float[NDArray[np.float32], "4"]:
    """The largest coordinates of a box in a picture."""
    return np.tile(np.array([shown.width, shown.height], np.float32), 2)


def _has_extent(boxes: Float[NDArray[Any], "n 4"]) -> Bool[NDArray[np.bool_], " n"]:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _box_mask(box: NDArray[np.float32], size: Size) -> Bool[NDArray[np.bool_], "h w"]:
    left, top, right, bottom = np.clip(
        [np.floor(box[0]), np.floor(box[1]), np.ceil(box[2]), np.ceil(box[3])], 0, None
    ).astype(int)
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


class ObjectWriter:
    """Collects the objects of a data set in any order."""

    def __init__(self, *, relative: bool = False) -> None:
        """`relative` says that coordinates are shares of the picture's width and height, not pixels."""
        self._relative = relative
        self._pictures, self._classes = array("i"), array("i")
        self._boxes, self._crowd = array("d"), array("b")
        self.outlines = OutlineWriter(relative=relative)
        """Takes the outline of each object, in the order of `add`."""

    def add(
        self, picture: int, box: tuple[float, float, float, float], number: int, crowd: bool
    ) -> None:
        """Add a box (left, top, right, bottom) of a class."""
        self._pictures.append(picture)
        self._boxes.extend(box)
        self._classes.append(number)
        self._crowd.append(crowd)

    def table(
        self,
        names: tuple[str, ...],
        frames: NDArray[np.int32],
        odd: Oddities,
        place: Callable[[int], str],
        what: str,
        *,
        rows: NDArray[np.int64] | None = None,
        numbers: NDArray[np.int32] | None = None,
    ) -> ObjectTable:
        """All objects, sorted by picture; boxes that are no boxes are left out.

        Args:
            names: the classes.
            frames: height and width of each picture's frame, [n 2]; 0 where not known.
            rows: the row of each picture of `add`, -1 if there is no such picture; they are rows already if None.
            numbers: the number of each class of `add`, if they are others.
            odd: counts what is left out or changed.
            place: the name of a picture, for the first of them.
            what: see `ObjectTable.what`.
        """
        pictures, crowd = np.array(self._pictures, np.int64), np.array(self._crowd, bool)
        classes = np.array(self._classes, np.int32)
        pictures = pictures if rows is None else rows[pictures]
        if count := int((pictures < 0).sum()):
            odd.add("objects dropped, because their picture is not listed", what, count)
        boxes = np.array(self._boxes, np.float64).reshape(-1, 4)
        kept, boxes = _clipped(boxes, pictures, frames, self._relative, odd, place)
        order = kept[np.argsort(pictures[kept], kind="stable")]
        outlines = self.outlines.written()
        has_masks = False
        if outlines is not None:
            outlines = outlines.rows(order)
            misfits = outlines.misfits(frames[pictures[order], 0])
            if misfits.any():
                outlines = outlines.without(misfits)
                first = place(int(pictures[order][misfits][0]))
                odd.add(
                    "outlines not used, because their picture has another size",
                    first,
                    int(misfits.sum()),
                )
            has_masks, crowd[order] = _with_masks(outlines.known, crowd[order], odd, what)
        counts = np.bincount(pictures[order], minlength=len(frames))
        return ObjectTable(
            kind=ObjectLabels(names=names, masks=has_masks),
            what=what,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=boxes[order].astype(np.float32),
            classes=(classes if numbers is None else numbers[classes])[order],
            crowd=crowd[order],
            frames=frames,
            relative=self._relative,
            outlines=outlines if has_masks else None,
            odd=odd.all(),
        )


def _with_masks(
    known: NDArray[np.bool_], crowd: NDArray[np.bool_], odd: Oddities, what: str
) -> tuple[bool, NDArray[np.bool_]]:
    """Whether outlines are used; and the crowds, to which objects without an outline then belong."""
    lacking = ~known & ~crowd
    count, total = int(lacking.sum()), int((~crowd).sum())
    if total == 0 or count > _MOST_WITHOUT * total:
        odd.add("outlines not used, because most objects have none", what, int(known.sum()))
        return False, crowd
    if count:
        odd.add("objects without an outline count as crowds", what, count)
    return True, crowd | lacking


def _clipped(
    boxes: Float[NDArray[np.float64], "m 4"],
    pictures: NDArray[np.int64],
    frames: NDArray[np.int32],
    relative: bool,
    odd: Oddities,
    place: Callable[[int], str],
) -> tuple[NDArray[np.int64], Float[NDArray[np.float64], "m 4"]]:
    """The boxes that have an extent in a picture, and all boxes clipped."""

    def counted(rows: NDArray[np.bool_], what: str) -> None:
        if rows.any():
            odd.add(what, place(int(pictures[int(np.argmax(rows))])), int(rows.sum()))

    listed = pictures >= 0
    finite = listed & np.isfinite(boxes).all(1)
    counted(listed & ~finite, "boxes dropped, because a coordinate is not a number")
    boxes = np.where(finite[:, None], boxes, 0)
    extent = _has_extent(boxes)
    counted(finite & ~extent, "boxes dropped, because they have no width or height")
    sides = np.ones_like(frames) if relative else frames
    limits = np.where(sides > 0, sides, np.inf)[pictures][:, [1, 0, 1, 0]]
    inside = np.clip(boxes, 0, limits)
    left = _has_extent(inside)
    counted(extent & ~left, OUTSIDE)
    over = np.abs(boxes - inside).max(1, initial=0) > (
        _RELATIVE_ROUNDING if relative else _ROUNDING
    )
    kept = finite & extent & left
    counted(kept & over, "boxes clipped to their picture")
    return np.flatnonzero(kept), inside
