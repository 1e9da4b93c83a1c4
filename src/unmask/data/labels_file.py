"""Images with labels from a separate file, one row per image.

The file is a CSV with a header, Parquet, or JSON lines (.jsonl). The column `file_name` has the name of each image in its
folder, shard or table. The labels have one of two forms:

- one column, called `label` or the only other column: a number or a word; several classes as `cat;dog`, as a JSON list
  such as ["cat", "dog"], or (Parquet) as a list;
- one column per class, with the class as its name, of 0 and 1.

An empty cell means that the label is not known. An empty list, or 0 for all classes, means that the image belongs to no
class. If every labelled image has exactly one class, the labels are class labels, else multi-label.
"""

import csv
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unmask.annotations import UNKNOWN, ClassLabels
from unmask.contracts import ImageSource
from unmask.data.arrow_files import arrow_file
from unmask.data.folder import Folder
from unmask.data.image_files import EncodedImages
from unmask.data.label_values import LABEL_NAMES, label_word
from unmask.data.labels import Labels, as_word, several_labels, word_labels, words_of
from unmask.data.parquet import Parquet
from unmask.data.shards import Shards
from unmask.data.split_folders import split_folder
from unmask.data.tiff import BandImages, Tiff
from unmask.errors import DataError
from unmask.files import parse_json
from unmask.spec import Kind

NAME = "file_name"
"""Name of the column with the images' names."""

JSON_LINES = ".jsonl"
_LONGEST_LINE = 2**20  # bytes of a row as JSON
_MOST_CELLS = 10**8

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
    table = _read(path)
    if NAME not in table:
        raise DataError(
            f"{path} has no column {NAME}, only {', '.join(table)}; name the column with the images' names {NAME}, and "
            "separate columns with commas"
        )
    names = [_name(name, row, path) for row, name in enumerate(table.pop(NAME))]
    _check_once(names, path)
    column = _label_column(table, path)
    words = _one_hot(table, path) if column is None else list(_words(table[column], column, path))
    if all(word is None for word in words):
        raise DataError(f"{path} has no labels: every row is empty; fill in the classes")
    return names, _as_labels(words, None if column else tuple(table))


def _name(value: object, row: int, path: Path) -> str:
    if isinstance(value, str) and value:
        return value.removeprefix("./")
    raise DataError(
        f"{_place(row, path)} has no name of an image in {NAME}; write one, or remove the row"
    )


def _read(path: Path) -> dict[str, list[Any]]:
    """The columns of a file; CSV columns are read as text."""
    if path.exists() and not path.is_file():
        raise DataError(
            f"{path} is not a regular file; the labels file must be CSV, Parquet or JSON lines"
        )
    ending = path.suffix.lower()
    try:
        if ending == JSON_LINES:
            return _json_lines(path)
        table = _parquet(path) if ending == ".parquet" else _csv(path)
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; the labels file must be CSV, Parquet or JSON lines with a column {NAME}"
        ) from None
    except (pa.ArrowException, csv.Error, UnicodeDecodeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path} cannot be read as {'Parquet' if ending == '.parquet' else 'CSV'} ({reason}); put values with "
            "commas in quotes, and save text as UTF-8"
        ) from None
    columns = table.column_names
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path} has two columns {twice[0]}; rename or remove one")
    return {name: table.column(name).to_pylist() for name in columns}


def _parquet(path: Path) -> pa.Table:
    with arrow_file(path) as file:
        return pq.read_table(file)


def _csv(path: Path) -> pa.Table:
    import pyarrow.csv as pacsv  # a machine that only trains need not have all of pyarrow

    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    with arrow_file(path) as file:
        return pacsv.read_csv(
            file,
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in header}, strings_can_be_null=False
            ),
        )


def _json_lines(path: Path) -> dict[str, list[Any]]:
    """The columns of a file with a JSON object per line; what a line lacks is None."""
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE + 1):
            place = _place(len(rows), path)
            row = parse_json(line, place, _LONGEST_LINE) if line.strip() else {}
            if not isinstance(row, dict):
                raise DataError(
                    f'{place} is not a JSON object such as {{"{NAME}": "a.png", "label": "cat"}}'
                )
            rows.append(row)
            columns |= dict.fromkeys(row)
            if len(columns) * len(rows) > _MOST_CELLS:
                raise DataError(
                    f"{path} has {len(columns):,} different columns, too many for labels"
                )
    while rows and not rows[-1]:
        rows.pop()
    return {name: [row.get(name) for row in rows] for name in columns}


def _check_once(names: list[str], path: Path) -> None:
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if seen.setdefault(name, row) != row:
            raise DataError(
                f"{path} has {name} in rows {_number(seen[name], path)} and {_number(row, path)}; keep one row per "
                "image, with all its classes, such as cat;dog"
            )


def _place(row: int, path: Path) -> str:
    return f"row {_number(row, path)} of {path}"


def _number(row: int, path: Path) -> int:
    """The row number in an editor, where the header is row 1; JSON lines have no header."""
    return row + (1 if path.suffix.lower() == JSON_LINES else 2)


def _label_column(table: dict[str, list[Any]], path: Path) -> str | None:
    """The column with the classes; None if each class has its own column."""
    if not table:
        raise DataError(f"{path} has no column except {NAME}; add a column label")
    only = next(iter(table)) if len(table) == 1 else None
    return next((name for name in LABEL_NAMES if name in table), only)


def _words(column: list[Any], name: str, path: Path) -> Iterator[list[str] | None]:
    """The classes of each row; None for an empty cell."""
    for row, value in enumerate(column):
        if value is None or value == "":
            yield None
        elif isinstance(value, str) and value.lstrip().startswith("["):
            yield _listed(value, row, name, path)
        else:
            parts = value.split(";") if isinstance(value, str) else [value]
            try:
                words = [word for part in parts if (word := label_word(part))]
            except DataError:
                raise DataError(
                    f"{_place(row, path)} has {value} as {name}; a class must be an integer or a word"
                ) from None
            yield [one for word in words for one in words_of(word)] if words else None


def _listed(text: str, row: int, name: str, path: Path) -> list[str]:
    try:
        value = parse_json(text, str(path))
    except DataError:
        value = None
    if not isinstance(value, list) or any(isinstance(item, list | dict | None) for item in value):
        raise DataError(
            f"{_place(row, path)} has {text} as {name}, which is not a JSON list of classes; write "
            '["cat", "dog"] or cat;dog'
        )
    return [str(item) for item in value]


def _one_hot(table: dict[str, list[Any]], path: Path) -> list[list[str] | None]:
    """The classes of each row, from one column of 0 and 1 per class."""
    classes: list[list[str] | None] = []
    for row, values in enumerate(zip(*table.values(), strict=True)):
        texts = ["" if value is None else str(value).strip().lower() for value in values]
        cells = list(zip(table, texts, strict=True))
        if not any(texts):
            classes.append(None)
            continue
        for name, cell in cells:
            if cell not in _TRUTH:
                raise DataError(
                    f"{_place(row, path)} has {cell!r} in column {name}; the column of a class must be 0 or 1. "
                    "If one column has the classes, name it label"
                )
        classes.append([name for name, cell in cells if _TRUTH[cell]])
    return classes


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
