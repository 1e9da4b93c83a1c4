"""The values of a Parquet column, a few rows at a time, so that what a file claims of itself cannot fill the memory."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unmask.data.arrow_files import arrow_file, parquet_metadata
from unmask.data.parquet_pages import Pages, pages_of
from unmask.errors import DataError, first_line

BATCH = 2**26
"""Bytes of rows that are decoded together, unless one row has more."""

_MOST_ROWS = 1_000_000  # in a file with fewer bytes than rows
_ROWS = 1000  # that are decoded together


class Group(NamedTuple):
    """A column of a row group."""

    file: Path
    number: int
    rows: int
    column: str
    """The column, or the path of a field of a struct, such as image.bytes."""
    chunk: Any
    """pyarrow's metadata of the column in this row group."""

    @property
    def claimed(self) -> int:
        """Uncompressed bytes, as the end of the file has it."""
        return self.chunk.total_uncompressed_size

    def pages(self) -> Pages:
        """Its pages, as they are; raises DataError if one has no valid header."""
        return pages_of(self.file, self.chunk)


def groups_of(file: Path, column: str) -> list[Group]:
    """The row groups of a file that have rows.

    Raises:
        DataError: if it is damaged, or claims more rows than it has bytes, from a million rows on.
    """
    metadata, size = parquet_metadata(file), file.stat().st_size
    if not 0 <= metadata.num_rows <= max(_MOST_ROWS, size):
        raise DataError(
            f"{file} claims {metadata.num_rows:,} rows in {size:,} bytes; it is damaged, or made to fill the memory"
        )
    groups: list[Group] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        parts = [chunk for chunk in chunks if chunk.path_in_schema == column]
        parts += [chunk for chunk in chunks if chunk.path_in_schema.startswith(f"{column}.")]
        if not parts:
            raise DataError(f"{file} is damaged: row group {number} has no column {column}")
        if group.num_rows:
            groups.append(Group(file, number, group.num_rows, column, parts[0]))
    if sum(group.rows for group in groups) != metadata.num_rows:
        raise DataError(
            f"{file} is damaged: its row groups have not the {metadata.num_rows:,} rows that it claims"
        )
    return groups


def decoded(group: Group, pages: Pages, dictionary: str | None = None) -> Iterator[pa.Array]:
    """The values in arrays of at most 1,000 rows, and of about `BATCH` bytes or one row.

    `dictionary` is the path of values to leave in a dictionary.

    Raises:
        DataError: if they cannot be decoded, or are not as many as the rows of the group.
    """
    rows = max(1, min(_ROWS, BATCH // max(1, pages.largest)))
    count = 0
    with _file(group, dictionary) as opened:
        for batch in opened.iter_batches(rows, **_settings(group), row_groups=[group.number]):
            count += batch.num_rows
            if count > group.rows:
                break
            yield _unnested(batch.column(0))
    _check_rows(group, count)


def whole(group: Group) -> pa.ChunkedArray:
    """All values as a dictionary, which holds each once; with all its pages, it is in memory about three times.

    Raises:
        DataError: as `decoded`.
    """
    with _file(group, group.column) as opened:
        column = opened.read_row_group(group.number, **_settings(group)).column(0)
        parts = [_unnested(part) for part in column.chunks]
    _check_rows(group, len(column))
    return pa.chunked_array(parts)


def _settings(group: Group) -> dict[str, Any]:
    return {"columns": [group.column], "use_threads": False}


def _unnested(array: pa.Array) -> pa.Array:
    """A column or the only field of it, checked; a null struct becomes a null field."""
    array = array.flatten()[0] if pa.types.is_struct(array.type) else array
    array.validate(full=True)  # pyarrow does not check the indices of a dictionary, or text
    return array


def _check_rows(group: Group, count: int) -> None:
    if count != group.rows:
        raise DataError(
            f"{group.file} is damaged: row group {group.number} has not the {group.rows:,} rows that it claims"
        )


@contextmanager
def _file(group: Group, dictionary: str | None) -> Generator[pq.ParquetFile]:
    """The file of a group, open to read; whatever pyarrow raises becomes a DataError."""
    try:
        # with its usual buffers, pyarrow would read the whole column before it decodes the first page
        with (
            arrow_file(group.file) as file,
            pq.ParquetFile(
                file,
                pre_buffer=False,
                buffer_size=2**20,
                read_dictionary=None if dictionary is None else [dictionary],
            ) as opened,
        ):
            yield opened
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise DataError(
            f"{group.file} is damaged: column {group.column} cannot be read ({first_line(error)})"
        ) from None
