"""The columns of a labels file: CSV with a header, Parquet, or JSON lines. Only those that are needed are read."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from unmask.data.arrow_files import arrow_file
from unmask.data.parquet_columns import is_label, schema_of, short
from unmask.data.parquet_labels import column_values
from unmask.errors import DataError, first_line
from unmask.files import parse_json

JSON_LINES = ".jsonl"
_PARQUET = ".parquet"
_LONGEST = 2**20  # bytes of a row as JSON, or of a cell in Parquet
_MOST_CELLS = 10**8

Choice = Callable[[list[str]], list[str]]
"""Picks the columns to read out of the names of all; may raise DataError."""


def read_columns(path: Path, choose: Choice) -> dict[str, list[Any]]:
    """The chosen columns of a labels file; CSV columns are read as text.

    Raises:
        DataError: if the file cannot be read, or a chosen column is there twice.
    """
    if path.exists() and not path.is_file():
        raise DataError(
            f"{path} is not a regular file; the labels file must be CSV, Parquet or JSON lines"
        )
    if not path.exists():
        raise DataError(
            f"{path} does not exist; the labels file must be CSV, Parquet or JSON lines with a column file_name"
        )
    read = {JSON_LINES: _json_lines, _PARQUET: _parquet}.get(path.suffix.lower(), _csv)
    try:
        return read(path, choose)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


def place(row: int, path: Path) -> str:
    """A row of a file in words."""
    return f"row {row_number(row, path)} of {path}"


def row_number(row: int, path: Path) -> int:
    """The row number in an editor, where the header is row 1; JSON lines have no header."""
    return row + (1 if path.suffix.lower() == JSON_LINES else 2)


def _chosen(names: list[str], choose: Choice, path: Path) -> list[str]:
    chosen = choose(names)
    if twice := [name for name in chosen if names.count(name) > 1]:
        raise DataError(f"{path} has two columns {twice[0]}; rename or remove one")
    return chosen


def _parquet(path: Path, choose: Choice) -> dict[str, list[Any]]:
    schema = schema_of(path)
    chosen = _chosen(schema.names, choose, path)
    if odd := [name for name in chosen if not is_label(schema.field(name).type)]:
        kind = short(schema.field(odd[0]).type)
        raise DataError(
            f"{path} has values of type {kind} in column {odd[0]}, which are not names or classes"
        )
    return {name: _cells(path, name) for name in chosen}


def _cells(path: Path, column: str) -> list[Any]:
    """The values of a column, equal texts once in memory."""
    known: dict[str | bytes, str | bytes] = {}
    cells: list[Any] = []
    for value in column_values(path, column):
        if not isinstance(value, str | bytes):
            cells.append(value)
            continue
        if len(value) > _LONGEST:
            raise DataError(
                f"{place(len(cells), path)} has {len(value):,} bytes in column {column}, too many for a class; if "
                "another column has the classes, name it label"
            )
        cells.append(known.setdefault(value, value))
    return cells


def _csv(path: Path, choose: Choice) -> dict[str, list[Any]]:
    import pyarrow.csv as pacsv  # a machine that only trains need not have all of pyarrow

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = next(filter(None, csv.reader(file)), [])
        chosen = _chosen(names, choose, path)
        with arrow_file(path) as file:
            table = pacsv.read_csv(
                file,
                parse_options=pacsv.ParseOptions(newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(chosen, pa.string()),
                    include_columns=chosen,
                    strings_can_be_null=False,
                ),
            )
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as CSV ({first_line(error)}); put values with commas in quotes, and save text as UTF-8"
        ) from None
    return {name: table.column(name).to_pylist() for name in chosen}


def _json_lines(path: Path, choose: Choice) -> dict[str, list[Any]]:
    """The columns of a file with a JSON object per line; what a line lacks is None."""
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    with path.open("rb") as file:
        while line := file.readline(_LONGEST + 1):
            where = place(len(rows), path)
            row = parse_json(line, where, _LONGEST) if line.strip() else {}
            if not isinstance(row, dict):
                raise DataError(
                    f'{where} is not a JSON object such as {{"file_name": "a.png", "label": "cat"}}'
                )
            rows.append(row)
            columns |= dict.fromkeys(row)
            if len(columns) * len(rows) > _MOST_CELLS:
                raise DataError(
                    f"{path} has {len(columns):,} different columns, too many for labels"
                )
    while rows and not rows[-1]:
        rows.pop()
    return {name: [row.get(name) for row in rows] for name in choose(list(columns))}
