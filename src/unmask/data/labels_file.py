"""Images with labels from a separate file, one row per image.

The file is a CSV with a header, Parquet, or JSON lines (.jsonl). The column `file_name` has the name of each image in its
folder, shard or table. The labels have one of two forms:

- one column, called `label` or the only other column: a number or a word; several classes as `cat;dog`, as a JSON list
  such as ["cat", "dog"], or (Parquet) as a list;
- one column per class, with the class as its name, of 0 and 1.

An empty cell means that the label is not known. An empty list, or 0 for all classes, means that the image belongs to no
class. If every labelled image has exactly one class, the labels are class labels, else multi-label.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from os import fsdecode
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from unmask.annotations import UNKNOWN, ClassLabels
from unmask.contracts import ImageSource
from unmask.data.folder import Folder
from unmask.data.image_files import EncodedImages
from unmask.data.label_values import class_word, json_list, label_word, name_rank, shown
from unmask.data.labels import Labels, as_word, several_labels, word_labels, words_of
from unmask.data.labels_file_table import place, read_columns, row_number
from unmask.data.parquet import Parquet
from unmask.data.shards import Shards
from unmask.data.split_folders import split_folder
from unmask.data.tiff import BandImages, Tiff
from unmask.errors import DataError
from unmask.spec import Kind

NAME = "file_name"
"""Name of the column with the images' names."""

_LABEL_NAMES = ("label", "labels", "class", "classes", "category", "target", "fine_label")
"""Names of columns of labels, the first of which is used. Runs depend on the order, which is not that of images in Parquet."""

_SHOWN = 300  # characters of the names of columns in a message
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}

ImagesWithoutLabels = (
    Annotated[Folder, Kind("folder")]
    | Annotated[Shards, Kind("shards")]
    | Annotated[Parquet, Kind("parquet")]
    | Annotated[Tiff, Kind("tiff")]
)
"""Sources of images that a labels file can label."""


@dataclass(frozen=True, kw_only=True)
class LabelsFile:
    """Images of another source, with labels from a file instead of their own."""

    data: ImagesWithoutLabels
    """The images."""

    labels: str
    """The CSV, Parquet or JSON lines file. If it lies in the folder of a split, names are relative to that folder, and
    each split has its own file of that name."""

    @property
    def path(self) -> str:
        """Path of the images."""
        return self.data.path

    def splits(self) -> tuple[str, ...]:
        """The splits of the images."""
        return self.data.splits()

    def open(self, split: str = "train") -> ImageSource:
        """The images of a split, with the labels of the file.

        Images without a row are unlabelled. The source's `notes` count them, and the rows without an image.

        Raises:
            DataError: if the file cannot be read, or none of its rows names an image.
        """
        source = self.data.open(split)
        assert isinstance(source, EncodedImages | BandImages)
        path = self.file_of(split)
        names, labels = read_labels(path)
        rows = rows_of(source, names, self.folder_of(split))
        # with one file for several splits, a row may belong to another split
        notes = _differences(source, names, rows, path, len(self.splits()) == 1)
        values = labels.values[rows]
        values[rows < 0] = UNKNOWN
        other = relabelled(source, Labels(labels.kind, values))
        other.more_notes = source.more_notes + notes
        return other

    def folder_of(self, split: str) -> str:
        """The folder of a split within that of the images; "" if the splits have no folders."""
        is_divided = isinstance(self.data, Folder | Tiff) and len(self.splits()) > 1
        return split_folder(Path(self.path).expanduser(), split) if is_divided else ""

    def file_of(self, split: str) -> Path:
        """The file with the labels of a split."""
        path, root = (Path(name).expanduser().absolute() for name in (self.labels, self.path))
        folder = self.folder_of(split)
        if folder and path.parent == root / self.folder_of("train"):
            own = root / folder / path.name
            return own if own.exists() else path
        return path


def relabelled(source: EncodedImages | BandImages, labels: Labels) -> EncodedImages | BandImages:
    """The same images with other labels; their hashes change with them."""
    content = repr(labels.kind).encode() + labels.values.astype("<i8").tobytes()
    mark = sha256(content).hexdigest()[:16]
    other = copy(source)
    other.image_labels, other.annotations = labels, labels.kind
    other.fingerprint, other.state = f"{source.fingerprint}-{mark}", f"{source.state}-{mark}"
    return other


def read_labels(path: Path) -> tuple[list[str], Labels]:
    """The names of a file's rows, and their labels; raises DataError with the row, and how to correct it."""
    table = read_columns(path, lambda columns: _needed(columns, path))
    names = [_name(name, row, path) for row, name in enumerate(table.pop(NAME))]
    _check_once(names, path)
    column = next(iter(table)) if len(table) == 1 else None
    words = _one_hot(table, path) if column is None else list(_words(table[column], column, path))
    if all(word is None for word in words):
        raise DataError(f"{path} has no labels: every row is empty; fill in the classes")
    return names, _as_labels(words, None if column else tuple(table))


def _needed(columns: list[str], path: Path) -> list[str]:
    """The columns to read: the names, and the classes in one column or in one for each class."""
    if not columns:
        raise DataError(
            f"{path} has no column {NAME}, because it is empty; write one, and a column label"
        )
    if NAME not in columns:
        only = ", ".join(columns)[:_SHOWN]
        raise DataError(
            f"{path} has no column {NAME}, only {only}; name the column with the images' names {NAME}, and "
            "separate columns with commas"
        )
    others = [name for name in columns if name != NAME]
    if not others:
        raise DataError(f"{path} has no column except {NAME}; add a column label")
    first = min(others, key=lambda name: name_rank(name, _LABEL_NAMES))
    return [NAME, first] if first.lower() in _LABEL_NAMES else [NAME, *others]


def _name(value: object, row: int, path: Path) -> str:
    if isinstance(value, str | bytes) and value:
        return fsdecode(value).removeprefix("./")
    raise DataError(
        f"{place(row, path)} has no name of an image in {NAME}; write one, or remove the row"
    )


def _check_once(names: list[str], path: Path) -> None:
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if seen.setdefault(name, row) != row:
            raise DataError(
                f"{path} has {name} in rows {row_number(seen[name], path)} and {row_number(row, path)}; keep one row per "
                "image, with all its classes, such as cat;dog"
            )


def _words(column: list[Any], name: str, path: Path) -> Iterator[list[str] | None]:
    """The classes of each row; None for an empty cell."""
    for row, value in enumerate(column):
        try:
            yield _classes(value)
        except DataError as error:
            raise DataError(f"{place(row, path)} has {shown(value)} as {name}; {error}") from None


def _classes(value: object) -> list[str] | None:
    """The classes of a cell; None if they are not known."""
    parts: Sequence[object] = [value]
    if isinstance(value, str | bytes) and json_list(value) is None:
        text = fsdecode(value)
        if text.lstrip().startswith("[") and "," in text:
            raise DataError('that is not a JSON list of classes; write ["cat", "dog"] or cat;dog')
        parts = text.split(";")
    words = [word for part in parts if (word := label_word(part))]
    return [one for word in words for one in words_of(word)] if words else None


def _one_hot(table: dict[str, list[Any]], path: Path) -> list[list[str] | None]:
    """The classes of each row, from one column of 0 and 1 per class."""
    classes: list[list[str] | None] = []
    for row, values in enumerate(zip(*table.values(), strict=True)):
        cells = list(zip(table, map(_cell, values), strict=True))
        if not any(cell for _, cell in cells):
            classes.append(None)
            continue
        for (name, cell), value in zip(cells, values, strict=True):
            if cell not in _TRUTH:
                raise DataError(
                    f"{place(row, path)} has {shown(value)} in column {name}; the column of a class must be 0 or 1. "
                    "If one column has the classes, name it label"
                )
        classes.append([name for name, cell in cells if cell and _TRUTH[cell]])
    return classes


def _cell(value: object) -> str | None:
    """The word of a cell for one class, empty if it is not known; None if it is not a class."""
    try:
        return class_word(value).lower()
    except DataError:
        return None


def _as_labels(words: Sequence[list[str] | None], columns: tuple[str, ...] | None) -> Labels:
    """Class labels if every labelled image has one class, else multi-label; with columns, classes keep their order."""
    several = any(word is not None and len(word) != 1 for word in words)
    if columns is not None:
        labels = several_labels(words, columns, columns)
        if several:
            return labels
        known = (labels.values != UNKNOWN).all(1)
        values = np.where(known, labels.values.argmax(1), UNKNOWN)
        return Labels(ClassLabels(names=columns), values)
    texts = ["" if w is None else as_word(w) if several else w[0] for w in words]
    labels = word_labels(texts, {})
    assert labels is not None, "read_labels refuses files without labels"
    return labels


def rows_of(source: ImageSource, names: list[str], folder: str = "") -> NDArray[np.int64]:
    """The row of each image, -1 if it has none. Names may begin with the folder of the split."""
    row_of = {name: row for row, name in enumerate(names)}
    if folder:
        within = f"{folder}/"
        inner = {n.removeprefix(within): row for n, row in row_of.items() if n.startswith(within)}
        row_of = inner | row_of
    return np.array([row_of.get(source.name(i), UNKNOWN) for i in range(len(source))])


def _differences(
    source: ImageSource, names: list[str], rows: NDArray[np.int64], path: Path, is_whole: bool
) -> tuple[str, ...]:
    """Notes on images without a row, and on rows without an image if `is_whole`, that is, if all images are here."""
    without_row = np.flatnonzero(rows < 0)
    if len(without_row) == len(rows):
        raise DataError(
            f"no {NAME} in {path} matches an image: the first row has {names[0]}, but the first image is "
            f"{source.name(0)}; write paths relative to the image folder"
        )
    used = set(rows.tolist())
    unused = [name for row, name in enumerate(names) if row not in used]
    notes: list[str] = []
    if unused and is_whole:
        notes.append(f"{path.name}: {len(unused):,} rows match no image, the first is {unused[0]}")
    if len(without_row):
        first = source.name(int(without_row[0]))
        notes.append(f"{path.name}: {len(without_row):,} images have no row, the first is {first}")
    return tuple(notes)
