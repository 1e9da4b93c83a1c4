"""Sizes of the pages of a Parquet column, from the pages' own headers.

The end of a Parquet file claims sizes too, but the decoder follows the pages: it allocates what a page's header says, and
fails if the page holds more or less. So these are the sizes that bound what reading takes. The headers are Thrift
structures in the compact protocol (parquet-format, parquet.thrift: PageHeader).
"""

from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow.parquet as pq

from unmask.errors import DataError

_DICTIONARY_PAGE = 2
_TYPE, _UNCOMPRESSED, _COMPRESSED = 1, 2, 3  # fields of a page header
_CONTENTS = (5, 8)  # fields that describe the values of a data page, of version 1 and 2
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_DEEPEST = 8


class Pages(NamedTuple):
    """The pages of a column in a row group."""

    largest: int
    """Uncompressed bytes of the largest page."""
    total: int
    """Uncompressed bytes of all pages."""
    values: int
    """Number of values in all pages, nulls included."""
    dictionary: bool
    """Whether the column has a dictionary, so that values may be repeated."""


def pages_of(file: Path, chunk: pq.ColumnChunkMetaData) -> Pages:
    """The pages of a column chunk; nothing is decompressed.

    Raises:
        DataError: if a header cannot be read.
    """
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    end = start + chunk.total_compressed_size
    largest, total, values, dictionary = 0, 0, 0, False
    try:
        with file.open("rb") as opened:
            opened.seek(start)
            while opened.tell() < end:
                fields = _struct(opened)
                size = max(fields[_UNCOMPRESSED], fields[_COMPRESSED])
                largest, total = max(largest, size), total + size
                dictionary |= fields[_TYPE] == _DICTIONARY_PAGE
                values += sum(fields.get(kind, 0) for kind in _CONTENTS)
                if fields[_COMPRESSED] < 0 or fields[_UNCOMPRESSED] < 0:
                    raise ValueError("a negative size")
                opened.seek(fields[_COMPRESSED], 1)
    except (ValueError, KeyError, IndexError, OSError, OverflowError):
        raise DataError(
            f"{file} is damaged: a page of column {chunk.path_in_schema} has no valid header"
        ) from None
    return Pages(largest, total, values, dictionary)


def _struct(file: BinaryIO, depth: int = 0) -> dict[int, int]:
    """The integers of a Thrift structure by field; for a structure in it, its first field."""
    fields: dict[int, int] = {}
    number = 0
    while head := _byte(file):
        number = number + (head >> 4) if head >> 4 else _integer(file)
        kind = head & 15
        if kind in _INTEGERS:
            fields[number] = _integer(file)
        elif kind == _STRUCT and depth < _DEEPEST:
            fields[number] = _struct(file, depth + 1).get(1, 0)
        else:
            _skip(file, kind, depth)
    return fields


def _skip(file: BinaryIO, kind: int, depth: int) -> None:
    """Pass over a field of another kind; Thrift's booleans have no bytes of their own."""
    if kind == _BINARY:
        file.seek(_varint(file), 1)
    elif kind in (_BYTE, _DOUBLE):
        file.seek(1 if kind == _BYTE else 8, 1)
    elif kind in (_LIST, _SET) and depth < _DEEPEST:
        head = _byte(file)
        for _ in range(_varint(file) if head >> 4 == 15 else head >> 4):
            _skip_element(file, head & 15, depth + 1)
    elif kind not in (_TRUE, _FALSE):
        raise ValueError(f"field of kind {kind}")


def _skip_element(file: BinaryIO, kind: int, depth: int) -> None:
    if kind in _INTEGERS:
        _varint(file)
    elif kind == _STRUCT and depth < _DEEPEST:
        _struct(file, depth + 1)
    elif kind in (_TRUE, _FALSE):
        _byte(file)
    else:
        _skip(file, kind, depth)


def _byte(file: BinaryIO) -> int:
    return file.read(1)[0]


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a number of more than 10 bytes")


def _integer(file: BinaryIO) -> int:
    value = _varint(file)
    return (value >> 1) ^ -(value & 1)
