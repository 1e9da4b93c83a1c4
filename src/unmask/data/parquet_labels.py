"""The labels in a column of Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from unmask.data.label_values import NOT_CLASSES, label_word, numbered_labels
from unmask.data.labels import Labels, unlabelled, word_labels
from unmask.data.parquet_columns import Columns, is_list
from unmask.data.parquet_rows import BATCH, Group, decoded, groups_of
from unmask.errors import DataError

_MOST_VALUES = 100  # of a row, on average
_ALLOWED = 100_000  # values of small files


class _NotClasses(Exception):
    """Why a column is not read as classes."""


def read_labels(files: list[Path], columns: Columns, count: int) -> tuple[Labels, tuple[str, ...]]:
    """The label of each row, and a note if the values of the column are not classes.

    Raises:
        DataError: if a file is damaged, or for a label without a class name if the classes have names.
    """
    name = columns.label
    if name is None:
        return unlabelled(count), ()
    try:
        words = [word for file in files for word in _words(file, name)]
    except _NotClasses as error:
        return unlabelled(count), (f"column {name} is {NOT_CLASSES}: {error}",)
    if columns.class_names:
        where, text = f"column {name}", columns.label_is_text
        return numbered_labels(words, columns.class_names, columns.several, where, text=text), ()
    try:
        return word_labels(words, {}) or unlabelled(count), ()
    except DataError as error:
        return unlabelled(count), (f"column {name} is {NOT_CLASSES}: {error}",)


def column_values(file: Path, column: str) -> Iterator[Any]:
    """The values of a column as Python's.

    Raises:
        DataError: if the file is damaged, or the column holds too much for labels.
    """
    try:
        for group in groups_of(file, column):
            yield from _values(group)
    except _NotClasses as error:
        raise DataError(f"column {column} cannot be labels: {error}") from None


def _words(file: Path, column: str) -> Iterator[str]:
    """The word of each row; see `label_word`."""
    known: dict[Any, str] = {}
    row = 0
    for group in groups_of(file, column):
        for value in _values(group):
            try:
                if isinstance(value, list):
                    yield label_word(value)
                else:
                    yield (
                        known[value]
                        if value in known
                        else known.setdefault(value, label_word(value))
                    )
            except DataError as error:
                raise _NotClasses(f"{error} (row {row} of {file.name})") from None
            row += 1


def _values(group: Group) -> Iterator[Any]:
    """The values of a row group as Python's."""
    pages = group.pages()
    if pages.largest > BATCH or pages.values > _ALLOWED + _MOST_VALUES * group.rows:
        raise _NotClasses(f"{group.file.name} holds too much in it for names of classes")
    # text in lists may repeat long values without bound; those outside of lists are bounded by the rows of a batch
    path = group.chunk.path_in_schema
    for array in decoded(group, pages, dictionary=None if path == group.column else path):
        if is_list(array.type) and pa.types.is_dictionary(array.type.value_type):
            yield from _lists(array)
        else:
            yield from array.to_pylist()


def _lists(array: pa.Array) -> Iterator[list[Any] | None]:
    """The lists of an array of lists of a dictionary's values, each of which is converted once."""
    import pyarrow.compute as pc

    flat = pc.call_function("list_flatten", [array])
    words: list[Any] = flat.dictionary.to_pylist()
    values = (None if place is None else words[place] for place in flat.indices.to_pylist())
    for length in pc.call_function("list_value_length", [array]).to_pylist():
        yield None if length is None else [next(values) for _ in range(length)]
