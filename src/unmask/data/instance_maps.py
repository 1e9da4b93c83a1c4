"""Pictures with a map of their objects beside each: 0 is background, and every other value is one object of one class."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from unmask.annotations import ObjectLabels, Objects
from unmask.contracts import Size
from unmask.data.class_names import names_beside
from unmask.data.dense_images import DenseImages, Pictures, open_pictures
from unmask.data.folder import list_named
from unmask.data.found import Found
from unmask.data.frames import UPRIGHT, Turned, turn_of, turned_pixels
from unmask.data.labels import Names
from unmask.data.map_layouts import asked_layout, pairs_of, pictures_of, unpaired
from unmask.data.map_tables import USUALLY_IGNORED
from unmask.data.map_values import MISSING, read_values, size_of
from unmask.data.outlines import box_of
from unmask.data.picture_facts import evenly
from unmask.errors import DataError
from unmask.progress import counted

_LOOKED_AT = 200  # maps whose objects are counted before anything runs
_MOST = 4096  # objects of a picture; more are no instances


@dataclass(frozen=True, kw_only=True)
class InstanceMaps:
    """Masks of objects from maps in which every value but 0 is one object.

    All objects are of one class, which a file such as classes.txt may name. Boxes are the ones around the masks.
    """

    path: str
    """Path of the folder."""

    ignored: tuple[int, ...] = USUALLY_IGNORED
    """Values of pixels that belong to no object and are not background either, as at the borders in Pascal VOC."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the folder has both, else ("train",)."""
        return tuple(asked_layout(self.path).parts)

    def open(self, split: str = "train") -> DenseImages:
        """Scan a split, and some of its maps.

        Raises:
            DataError: if there are no maps, or more than one class is named.
        """
        layout = asked_layout(self.path, split)
        part = layout.parts[split]
        pairs = pairs_of(part)
        known = names_beside([Path(self.path).expanduser(), part.maps])
        names, source = known if known is not None else (("object",), "")
        if len(names) > 1:
            raise DataError(
                f"{source} names {len(names)} classes, and maps of objects tell no classes; leave one name"
            )
        maps = InstanceFiles(part.maps, pairs.maps, names, self.ignored)
        pictures = open_pictures(part.pictures, pairs.pictures)
        return DenseImages(pictures, maps, pairs.pictures, layout.notes + unpaired(part, pairs))

    def pictures(self, split: str = "train") -> Pictures:
        """All pictures of a split; see `WithPictures`."""
        return pictures_of(asked_layout(self.path, split), split)


class InstanceFiles:
    """The objects of some pictures, from maps that are read when they are needed."""

    what = "its map of objects has"

    def __init__(
        self, root: Path, names: list[str], classes: tuple[str, ...], ignored: tuple[int, ...]
    ) -> None:
        self._root, self._names, self._ignored = root, Names(names), ignored
        (self._class,) = classes
        self.kind = ObjectLabels(names=classes, masks=True)
        self._listing = list_named(root, sorted(set(names))).fingerprint
        self._looked = self._look()

    @property
    def mark(self) -> str:
        """A hash of the files' names and sizes."""
        content = repr((self._listing, self.kind, self._ignored))
        return sha256(content.encode()).hexdigest()[:16]

    def of(self, row: int, shown: Size, orientation: Callable[[], int]) -> Objects:
        """See `Known`."""
        values = self._values(row)
        frame, turned = Size(*values.shape), Turned(UPRIGHT, shown)
        if frame != shown:
            turned = turn_of(frame, shown, orientation(), f"{self.what} ({self._names[row]})")
        objects = objects_of(turned_pixels(values, turned), self._numbers(values))
        number = self.kind.names.index(self._class)
        return objects._replace(classes=torch.full_like(objects.classes, number))

    def _values(self, row: int) -> Int[NDArray[np.int64], "h w"]:
        return read_values(self._root / self._names[row], coloured=False)

    def _numbers(self, values: NDArray[np.int64]) -> list[int]:
        """The values that are objects."""
        nothing = {0, MISSING, *self._ignored}
        numbers = [value for value in np.unique(values).tolist() if value not in nothing]
        if len(numbers) > _MOST:
            raise DataError(f"has {len(numbers):,} different values, too many to be objects")
        return numbers

    def frame(self, row: int) -> Size | None:
        """See `Known`."""
        return size_of(self._root / self._names[row])

    def found(self, rows: NDArray[np.int64]) -> Found:
        """See `Known`; objects are those of the maps that were looked at."""
        return self._looked._replace(
            pictures=len(rows), looked_at=min(self._looked.looked_at, len(rows))
        )

    def _look(self) -> Found:
        chosen = evenly(len(self._names), _LOOKED_AT)
        counts: list[int] = []
        for row in counted(chosen, len(chosen), "looking at maps of objects"):
            try:
                counts.append(len(self._numbers(self._values(row))))
            except DataError:  # training sets it aside
                continue
        return Found(
            "objects",
            len(self._names),
            self.kind.names,
            (sum(counts),),
            empty=counts.count(0),
            looked_at=len(chosen),
        )

    def present(self, rows: NDArray[np.int64]) -> Bool[NDArray[np.bool_], "n 1"]:
        """See `Known`."""
        table = np.zeros((len(rows), 1), dtype=bool)
        for place, row in enumerate(counted(rows.tolist(), len(rows), "reading maps of objects")):
            try:
                table[place, 0] = bool(self._numbers(self._values(row)))
            except DataError:  # training sets it aside
                continue
        return table

    def with_kind(self, kind: ObjectLabels) -> "InstanceFiles":
        """See `Known`."""
        other = copy(self)
        other.kind = kind
        return other


def objects_of(values: Int[NDArray[np.int64], "h w"], numbers: list[int]) -> Objects:
    """The objects that some values mark, each with its box, all of class 0."""
    masks = [values == number for number in numbers]
    boxes = [box for mask in masks if (box := box_of(mask)) is not None]
    stacked = np.stack(masks) if masks else np.zeros((0, *values.shape), bool)
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.zeros(len(boxes), dtype=torch.int64),
        torch.from_numpy(stacked),
    )
