"""Objects in COCO's format (Lin and others, 2014): a JSON file with pictures, categories, boxes and outlines."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.coco_files import coco_files, picture_folder, plain_name
from unmask.data.dense_images import DenseImages, Pictures, open_pictures
from unmask.data.found import Oddities
from unmask.data.json_stream import entries
from unmask.data.object_table import ObjectTable, ObjectWriter
from unmask.data.outlines import box_of_runs, run_lengths, usable
from unmask.data.walk import files_in, is_image
from unmask.errors import DataError, listed

_NO_BOX = "objects dropped, because they have neither a box nor an outline"
_FEW_CORNERS = "polygons left out, because they lack three corners that are numbers"
_BAD_RUNS = "run lengths left out, because they do not fill their picture"
_LARGEST_SIDE = 2**20


@dataclass(frozen=True, kw_only=True)
class Coco:
    """Boxes and outlines from COCO's JSON files.

    - Categories are numbered in the order of their ids, whatever holes these have.
    - Pictures without objects are learned as such. Pictures that the file does not list are not used.
    - Boxes are clipped to their picture. Those without an extent, outside of it or with NaN are dropped and counted.
    - Masks are used if at least half of the objects have an outline; the others then count as crowds.
    """

    path: str
    """Path of the folder, or of one JSON file."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if there is a file for both, else ("train",)."""
        return tuple(coco_files(Path(self.path).expanduser()).parts)

    def open(self, split: str = "train") -> DenseImages:
        """Read the annotations of a split, and scan its pictures.

        A file of 265 MB with 60,000 pictures and 420,000 objects of 30 corners each needs 300 MiB while it is read, and 113 MiB
        afterwards, which loading processes share. `json.load` alone needs 1.3 GiB for it.

        Raises:
            DataError: if the file is damaged, or its pictures are missing.
        """
        files = coco_files(Path(self.path).expanduser())
        file = files.of(split, self.path)
        root, names, table = _read(file)
        pictures = open_pictures(root, names)
        return DenseImages(pictures, table, names, files.notes)

    def pictures(self, split: str = "train") -> Pictures:
        """The pictures that a split lists, and those beside them that no split lists."""
        files = coco_files(Path(self.path).expanduser())
        root, names = _listed(files.of(split, self.path))
        folders = {name.rpartition("/")[0] for name in names}
        beside = (
            f"{folder}/{name}" if folder else name
            for folder in sorted(folders)
            for name in files_in(root / folder)
            if is_image(name)
        )
        if more := set(beside).difference(names):
            more -= _listed_elsewhere(root, [f for part, f in files.parts.items() if part != split])
        return open_pictures(root, sorted(more.union(names)))


def _listed(file: Path) -> tuple[Path, list[str]]:
    """The folder of the pictures that a file lists, and their names; its objects are not kept."""
    reader = _Reader(file)
    for key, value in entries(file):
        if key == "images":
            reader.picture(value)
    root, named = reader.named()
    return root, sorted(set(named.values()))


def _listed_elsewhere(root: Path, files: list[Path]) -> set[str]:
    """The names of pictures in a folder that other files list."""
    names: set[str] = set()
    for file in files:
        try:
            other, listed_there = _listed(file)
        except DataError:  # it matters where that file is opened; its pictures need not be here
            continue
        names |= {name for name in listed_there if other == root}
    return names


def _read(file: Path) -> tuple[Path, list[str], ObjectTable]:
    """The folder of the pictures, their names and objects."""
    reader = _Reader(file)
    for key, value in entries(file):
        match key:
            case "images":
                reader.picture(value)
            case "categories":
                reader.category(value)
            case "annotations":
                reader.object(value)
            case _:
                pass
    return reader.result()


class _Reader:
    """Collects the entries of a file, which may come in any order."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._numbers: dict[Hashable, int] = {}
        self._pictures: dict[int, str] = {}
        self._sides = dict[int, tuple[int, int]]()
        self._categories: dict[Hashable, str] = {}
        self._used: dict[Hashable, int] = {}
        self._writer, self._odd = ObjectWriter(), Oddities()

    def picture(self, entry: Any) -> None:
        """Add an entry of `images`."""
        number = self._number(self._id(entry, "id", "images"))
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{self._file}: image {entry['id']} has no file_name; add it")
        self._check_text(name, f"the file_name of image {entry['id']}")
        before = self._pictures.setdefault(number, name)
        if before != name:
            raise DataError(
                f"{self._file}: the image id {entry['id']} is that of {before} and of {name}, so it is not clear whose its "
                "objects are; give each picture its own id"
            )
        self._sides[number] = _side(entry.get("height")), _side(entry.get("width"))

    def category(self, entry: Any) -> None:
        """Add an entry of `categories`."""
        identity = self._id(entry, "id", "categories")
        name = str(entry.get("name", identity))
        self._check_text(name, f"the name of category {identity}")
        if self._categories.setdefault(identity, name) != name:
            raise DataError(
                f"{self._file}: the category id {identity} has two names, {self._categories[identity]} and {name}; remove one"
            )

    def object(self, entry: Any) -> None:
        """Add an entry of `annotations`."""
        number = self._number(self._id(entry, "image_id", "annotations"))
        category = self._id(entry, "category_id", "annotations")
        outline = entry.get("segmentation")
        runs = self._runs(outline) if isinstance(outline, dict) else None
        polygons = self._polygons(outline) if isinstance(outline, list) else []
        box = _box(entry.get("bbox")) or _around(polygons) or (box_of_runs(*runs) if runs else None)
        if box is None:
            self._odd.add(_NO_BOX, self._file.name)
            return
        crowd = bool(entry.get("iscrowd") or entry.get("ignore"))
        self._writer.add(number, box, self._used.setdefault(category, len(self._used)), crowd)
        if polygons:
            self._writer.outlines.polygons(polygons)
        elif runs is not None:
            self._writer.outlines.run_lengths(*runs)
        else:
            self._writer.outlines.nothing()

    def _number(self, identity: Hashable) -> int:
        return self._numbers.setdefault(identity, len(self._numbers))

    def _id(self, entry: Any, key: str, of: str) -> Hashable:
        value = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(value, int | str | float):
            return value
        raise DataError(f"{self._file}: an entry of {of} has no {key}: {str(entry)[:80]}; add it")

    def _check_text(self, text: str, what: str) -> None:
        """Refuse text that no file can be called and no console can show: JSON may escape NUL and halves of surrogates."""
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(
                f"{self._file}: {what} is {text!r}, which is not text; correct it there"
            )

    def _polygons(self, outline: list[Any]) -> list[NDArray[np.float64]]:
        """The polygons of an object, [corners 2] each."""
        parts = [outline] if outline and not isinstance(outline[0], list) else outline
        polygons: list[NDArray[np.float64]] = []
        for part in parts:
            try:
                corners = np.array(part, np.float64).reshape(-1, 2)
            except (ValueError, TypeError, OverflowError):  # not numbers, or an odd number of them
                corners = np.zeros((0, 2))
            if usable(corners):
                polygons.append(corners)
            else:
                self._odd.add(_FEW_CORNERS, self._file.name)
        return polygons

    def _runs(self, outline: dict[str, Any]) -> tuple[NDArray[np.uint32], Size] | None:
        """The run lengths of an object, and the size of their picture."""
        size = outline.get("size")
        if isinstance(size, list) and len(size) == 2 and all(map(_side, size)):
            whole = Size(*map(_side, size))
            if (runs := run_lengths(outline.get("counts"), whole)) is not None:
                return runs, whole
        self._odd.add(_BAD_RUNS, self._file.name)
        return None

    def named(self) -> tuple[Path, dict[int, str]]:
        """The folder of the pictures, and the name of each in it."""
        if not self._pictures:
            raise DataError(f"{self._file} lists no images, so it is not in COCO's format")
        root, alone = picture_folder(self._file, list(self._pictures.values()))
        return root, {number: plain_name(name, alone) for number, name in self._pictures.items()}

    def result(self) -> tuple[Path, list[str], ObjectTable]:
        """The folder of the pictures, their names and objects."""
        root, plain = self.named()
        names = sorted(set(plain.values()))
        row_of = {name: row for row, name in enumerate(names)}
        rows = np.full(len(self._numbers), -1, np.int64)
        frames = np.zeros((len(names), 2), np.int32)
        for number, name in plain.items():
            rows[number] = row_of[name]
            frames[row_of[name]] = self._sides[number]
        if (twice := len(plain) - len(names)) > 0:
            self._odd.add(
                "pictures are listed twice, and have the objects of both", self._file.name, twice
            )
        class_names, numbers = self._classes()
        table = self._writer.table(
            class_names,
            frames,
            self._odd,
            names.__getitem__,
            f"{self._file.name} says",
            rows=rows,
            numbers=numbers,
        )
        if not len(table.boxes) and any(odd.what == _NO_BOX for odd in table.odd):
            raise DataError(
                f"{self._file} has no boxes, only other annotations; give the file with boxes (instances_*.json) as DATA"
            )
        return root, names, table

    def _classes(self) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """The names of the classes, and the class of each category in the order of their use."""
        unknown = [str(identity) for identity in self._used if identity not in self._categories]
        if unknown:
            raise DataError(
                f"{self._file}: objects have the category {listed(unknown, 3)}, which categories lacks; add it there"
            )
        order = sorted(self._categories, key=lambda one: (isinstance(one, str), one))
        names = [self._categories[identity] for identity in order]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(
                f"{self._file}: two categories are called {twice}; give them different names"
            )
        place = {identity: number for number, identity in enumerate(order)}
        return tuple(names), np.array([place[identity] for identity in self._used], np.int32)


def _side(value: Any) -> int:
    """A height or width; 0 if it is none."""
    is_number = isinstance(value, int | float) and 0 < value < _LARGEST_SIDE
    return int(value) if is_number else 0


def _box(value: Any) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of left, top, width and height; None if there are no four."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(number, int | float) for number in value):
        return None
    try:
        left, top, width, height = map(float, value)
    except OverflowError:
        return None
    return left, top, left + width, top + height


def _around(polygons: list[NDArray[np.float64]]) -> tuple[float, float, float, float] | None:
    """The box around some polygons; None if there are none."""
    if not polygons:
        return None
    corners = np.concatenate(polygons)
    return (*corners.min(0).tolist(), *corners.max(0).tolist())
