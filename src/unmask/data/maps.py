"""Pictures with a class map beside each: folders in the usual layouts, as PNG, palette PNG, colours, GeoTIFF or .npy."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import ClassMaps
from unmask.contracts import Size
from unmask.data.class_names import ClassTable, table_beside
from unmask.data.dense_images import DenseImages, Pictures, open_pictures
from unmask.data.folder import list_named
from unmask.data.found import Found
from unmask.data.frames import UPRIGHT, Turned, turn_of, turned_pixels
from unmask.data.labels import Names
from unmask.data.map_layouts import (
    MapLayout,
    MapPart,
    asked_layout,
    pairs_of,
    pictures_of,
    unpaired,
)
from unmask.data.map_tables import (
    USUALLY_IGNORED,
    table_from_file,
    table_from_values,
    usual_table,
    with_binary,
)
from unmask.data.map_values import ValueTable, is_coloured, read_values, size_of
from unmask.data.picture_facts import evenly
from unmask.errors import DataError, SettingsError
from unmask.progress import counted

_LOOKED_AT = 200  # class maps whose pixels are counted before anything runs


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Pictures with class maps.

    - A file beside the data names the classes (classes.txt, .csv or .json); else every value is a class of its own, and all
      maps are read once to find them.
    - Pixels of ignored values become `ClassMaps.ignored`. So do no-data of GeoTIFFs, and classes called void or unlabelled.
    - If the names are numbered from 1, as in ADE20K, 0 is ignored.
    - Maps of 0 and 255 alone are a background and a foreground, also where a file gives two names without values.
    - A value that the file of names gives to a class is not ignored, unless `ignored` is set.
    - A value that stands for no class is an error, at once if one of 200 evenly spaced maps has it, else when it is read.
    """

    path: str
    """Path of the folder."""

    ignored: tuple[int, ...] = USUALLY_IGNORED
    """Values of pixels that are neither learned nor scored."""

    zero_is_ignored: bool = False
    """Whether 0 is ignored and the first name stands for 1, where the file of names does not say so."""

    def __post_init__(self) -> None:
        if any(value < 0 for value in self.ignored):
            raise SettingsError(f"ignored values must not be negative, got {list(self.ignored)}")

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the folder has both, else ("train",)."""
        return tuple(asked_layout(self.path).parts)

    def open(self, split: str = "train") -> DenseImages:
        """Scan a split, and the values of some of its maps.

        Raises:
            DataError: if there are no maps, or a value stands for no class.
        """
        layout = asked_layout(self.path, split)
        part = layout.parts[split]
        pairs = pairs_of(part)
        table, notes = self._table(layout)
        maps = MapFiles(part.maps, pairs.maps, table)
        pictures = open_pictures(part.pictures, pairs.pictures)
        return DenseImages(
            pictures, maps, pairs.pictures, layout.notes + notes + unpaired(part, pairs)
        )

    def pictures(self, split: str = "train") -> Pictures:
        """All pictures of a split; see `WithPictures`."""
        return pictures_of(asked_layout(self.path, split), split)

    def _table(self, layout: MapLayout) -> tuple[ValueTable, tuple[str, ...]]:
        """The classes of all splits, and what was decided about them."""
        train = layout.parts["train"]
        files = [train.maps / name for name in pairs_of(train).maps]
        named = self._named(train)
        ignored = {*self.ignored, *((0,) if self.zero_is_ignored else ())}
        if named is not None:
            if named.coloured and self.ignored != USUALLY_IGNORED:
                raise SettingsError(
                    f"--ignore {','.join(map(str, self.ignored))} is for numbers, and {named.file} says which class each colour "
                    "is; call ignored colours void there"
                )
            if ignored <= set(USUALLY_IGNORED):
                named = with_binary(named, files, str(train.maps))
            return table_from_file(named, ignored, self.zero_is_ignored)
        known = usual_table(train.maps, ignored)
        if known is not None:
            return known
        if is_coloured(files[0]):
            read_values(files[0], coloured=False)  # says what to do
        return table_from_values(files, ignored, str(train.maps))

    def _named(self, part: MapPart) -> ClassTable | None:
        """The file that names the classes, in the folder, beside the maps or between them."""
        root = Path(self.path).expanduser()
        between = [folder for folder in part.maps.parents if folder.is_relative_to(root)]
        return table_beside(dict.fromkeys([root, part.maps, *between]))


class MapFiles:
    """The class maps of some pictures, read when they are needed."""

    what = "its class map has"

    def __init__(self, root: Path, names: list[str], table: ValueTable) -> None:
        """Looks at some of the maps.

        Raises:
            DataError: if one of these has a value that stands for no class.
        """
        self._root, self._names, self.table = root, Names(names), table
        self.kind = ClassMaps(names=table.names, ignored=table.ignored)
        self._listing = list_named(root, sorted(set(names))).fingerprint
        self._looked = self._look()

    @property
    def mark(self) -> str:
        """A hash of the files' names and sizes, and of the classes."""
        values = zip(self.table.values.tolist(), self.table.classes.tolist(), strict=True)
        content = repr((self._listing, self.kind, list(values)))
        return sha256(content.encode()).hexdigest()[:16]

    def of(self, row: int, shown: Size, orientation: Callable[[], int]) -> Int[Tensor, "h w"]:
        """See `Known`."""
        classes = self.classes(row)
        frame, turned = Size(*classes.shape), Turned(UPRIGHT, shown)
        if frame != shown:
            turned = turn_of(frame, shown, orientation(), f"{self.what} ({self._names[row]})")
        return torch.from_numpy(np.ascontiguousarray(turned_pixels(classes, turned)))

    def classes(self, row: int) -> Int[NDArray[np.int64], "h w"]:
        """The class of each pixel, as stored."""
        file = self._root / self._names[row]
        return self.table.classes_of(read_values(file, coloured=self.table.coloured), file)

    def frame(self, row: int) -> Size | None:
        """See `Known`."""
        return size_of(self._root / self._names[row])

    def found(self, rows: NDArray[np.int64]) -> Found:
        """See `Known`; pixels are those of the maps that were looked at."""
        return self._looked._replace(
            pictures=len(rows), looked_at=min(self._looked.looked_at, len(rows))
        )

    def _look(self) -> Found:
        chosen = evenly(len(self._names), _LOOKED_AT)
        pixels = np.zeros(self.table.ignored + 1, np.int64)
        for row in counted(chosen, len(chosen), "looking at class maps"):
            try:
                read = read_values(self._root / self._names[row], coloured=self.table.coloured)
            except DataError:  # training sets it aside
                continue
            classes = self.table.classes_of(read, self._root / self._names[row])
            pixels += np.bincount(classes.reshape(-1), minlength=len(pixels))
        known = pixels[: len(self.table.names)]
        return Found(
            "pixels",
            len(self._names),
            self.table.names,
            tuple((known / max(1, known.sum())).tolist()),
            ignored=float(pixels[-1] / max(1, pixels.sum())),
            looked_at=len(chosen),
        )

    def present(self, rows: NDArray[np.int64]) -> Bool[NDArray[np.bool_], "n classes"]:
        """See `Known`."""
        table = np.zeros((len(rows), self.table.ignored + 1), dtype=bool)
        for place, row in enumerate(counted(rows.tolist(), len(rows), "reading class maps")):
            try:
                table[place, np.unique(self.classes(row))] = True
            except DataError:  # training sets it aside
                continue
        return table[:, : len(self.table.names)]

    def with_kind(self, kind: ClassMaps) -> "MapFiles":
        """See `Known`."""
        other = copy(self)
        other.kind, other.table = kind, self.table.renumbered(kind.names)
        return other
