"""Names of classes, and the values or colours that stand for them, from a file beside the data.

| file | each line or entry |
|---|---|
| classes.txt, names.txt, labels.txt, obj.names | a name; or a number and a name; or three colours and a name |
| classes.csv, class_dict.csv, with a header | columns name, and r, g, b or a value |
| objectInfo150.txt, as in ADE20K | columns Idx and Name, with tabs |
| classes.json | a list of names or of objects with name, id and color; or an object from numbers to names, names to numbers or colours |
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.walk import files_in
from unmask.errors import DataError
from unmask.files import read_json

_STEMS = (
    "classes",
    "class_names",
    "names",
    "label_colors",
    "class_dict",
    "labels",
    "obj",
    "categories",
    "objectinfo150",
)
_ENDINGS = (".txt", ".names", ".csv", ".json")
_LARGEST = 2**22  # bytes
_LARGEST_VALUE = 2**31
_NUMBERED = re.compile(r"(\d{1,18})[\s:,;]+(.*\D.*)")
_COLOURED = re.compile(r"(\d{1,18})[\s,;]+(\d{1,18})[\s,;]+(\d{1,18})[\s,;:]+(.*\D.*)")
_IGNORED = ("ignore_index", "ignore", "ignored")

Value = int | tuple[int, int, int]
"""What stands for a class in a file: a number, or red, green and blue."""


class NamedClass(NamedTuple):
    """A class of a table."""

    name: str
    value: Value
    is_stated: bool = True
    """Whether the file gives the value; if not, it is the place in the list."""


class ClassTable(NamedTuple):
    """The classes that a file names."""

    file: Path
    classes: tuple[NamedClass, ...]
    ignored: tuple[int, ...] = ()
    """Values that the file itself says to ignore."""

    @property
    def coloured(self) -> bool:
        """Whether colours stand for the classes."""
        return any(isinstance(one.value, tuple) for one in self.classes)

    @property
    def is_plain(self) -> bool:
        """Whether the file gives names alone, without values."""
        return not any(one.is_stated for one in self.classes)


def table_beside(folders: Iterable[Path]) -> ClassTable | None:
    """The first table of classes in some folders; None if there is none.

    Raises:
        DataError: if it cannot be read.
    """
    for folder in folders:
        there = {name.lower(): name for name in files_in(folder)}
        for name in (stem + ending for stem in _STEMS for ending in _ENDINGS):
            if name in there and (table := read_table(folder / there[name])) is not None:
                return table
    return None


def names_beside(folders: Iterable[Path]) -> tuple[tuple[str, ...], str] | None:
    """Names that are numbered from 0, and their file; None if no folder has any.

    Raises:
        DataError: if the file cannot be read, or has other numbers.
    """
    table = table_beside(folders)
    if table is None:
        return None
    values = [one.value for one in table.classes]
    if not table.coloured and values != list(range(len(values))):
        raise DataError(
            f"{table.file}: classes must be numbered from 0 without holes, got {values[:8]}"
        )
    return tuple(one.name for one in table.classes), str(table.file)


def read_table(file: Path) -> ClassTable | None:
    """The table of classes in a file; None if a JSON or CSV file holds something else.

    Raises:
        DataError: if it cannot be read, or names a class or value twice.
    """
    ignored: tuple[int, ...] = ()
    if file.suffix.lower() == ".json":
        content = _json(file)
        if isinstance(content, dict):
            ignored = tuple(content[key] for key in _IGNORED if isinstance(content.get(key), int))
        classes = _of_json(content)
    else:
        lines = _text(file).splitlines()
        columns = "," if file.suffix.lower() == ".csv" else "\t" if _has_header(lines) else None
        classes = _of_columns(lines, columns) if columns else _of_lines(lines)
    if not classes:
        return None
    names, values = [one.name for one in classes], [one.value for one in classes]
    twice = [f"name {name}" for name, count in Counter(names).items() if count > 1]
    twice += [f"value {value}" for value, count in Counter(values).items() if count > 1]
    if twice:
        raise DataError(f"{file} has the {twice[0]} twice; give each class its own")
    if len({isinstance(one.value, tuple) for one in classes}) > 1:
        raise DataError(
            f"{file} has colours for some classes and numbers for others; give all of them colours"
        )
    for one in classes:
        parts = one.value if isinstance(one.value, tuple) else (one.value,)
        if any(abs(part) >= _LARGEST_VALUE for part in parts):
            raise DataError(
                f"{file} gives {one.name} the value {one.value}, too large for a pixel; correct it"
            )
    return ClassTable(file, tuple(classes), ignored)


def _json(file: Path) -> Any:
    try:
        return read_json(file, _LARGEST)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            return opened.read(_LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(f"{file} cannot be read ({reason})") from None


def _of_lines(lines: list[str]) -> list[NamedClass]:
    classes: list[NamedClass] = []
    for line in (stripped for line in lines if (stripped := line.strip())):
        if line.startswith("#"):
            continue
        if match := _COLOURED.fullmatch(line):
            red, green, blue = (int(match[part]) for part in (1, 2, 3))
            classes.append(NamedClass(match[4].strip(), (red, green, blue)))
        elif match := _NUMBERED.fullmatch(line):
            classes.append(NamedClass(match[2].strip(), int(match[1])))
        else:
            classes.append(NamedClass(line, len(classes), False))
    return classes


def _has_header(lines: list[str]) -> bool:
    """Whether a text file is a table with tabs and a header, as ADE20K's objectInfo150.txt."""
    return bool(lines) and "name" in lines[0].lower().split("\t") and "\t" in lines[0]


def _of_columns(lines: list[str], separator: str) -> list[NamedClass]:
    rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    if not rows:
        return []
    header = [cell.strip().lower() for cell in rows[0]]
    name = next(
        (header.index(word) for word in ("name", "class", "label", "class_name") if word in header),
        None,
    )
    if name is None:
        return []
    colours = [header.index(word) for word in "rgb" if word in header] or [
        header.index(word) for word in ("red", "green", "blue") if word in header
    ]
    value = next(
        (
            header.index(word)
            for word in ("value", "id", "idx", "index", "number")
            if word in header
        ),
        None,
    )
    classes: list[NamedClass] = []
    for row in (row for row in rows[1:] if any(row)):
        try:
            if len(colours) == 3:
                red, green, blue = (int(row[column]) for column in colours)
                given: Value = (red, green, blue)
            else:
                given = len(classes) if value is None else int(row[value])
            is_stated = len(colours) == 3 or value is not None
            classes.append(NamedClass(row[name].strip(), given, is_stated))
        except (ValueError, IndexError):
            return []
    return classes


def _of_json(content: Any) -> list[NamedClass]:
    if isinstance(content, dict):
        for key in ("names", "classes", "categories"):
            if isinstance(content.get(key), list | dict):
                return _of_json(content[key])
        return [one for key, value in content.items() if (one := _pair(key, value)) is not None]
    if not isinstance(content, list):
        return []
    classes = [_entry(value, number) for number, value in enumerate(content)]
    return [one for one in classes if one is not None] if all(classes) else []


def _pair(key: str, value: Any) -> NamedClass | None:
    """A number and a name, a name and a number, or a name and a colour."""
    if re.fullmatch(r"\d{1,18}", key) and isinstance(value, str):
        return NamedClass(value, int(key))
    if isinstance(value, int) and key not in _IGNORED:
        return NamedClass(key, value)
    colour = _colour(value)
    return None if colour is None else NamedClass(key, colour)


def _entry(value: Any, number: int) -> NamedClass | None:
    """A class of a list: a name, or an object with a name."""
    if isinstance(value, str):
        return NamedClass(value, number, False)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    colour = _colour(value.get("color", value.get("colour")))
    given = value.get("id", value.get("value"))
    stated = colour or (given if isinstance(given, int) else None)
    return NamedClass(value["name"], number if stated is None else stated, stated is not None)


def _colour(value: Any) -> tuple[int, int, int] | None:
    if (
        isinstance(value, list)
        and len(value) in (3, 4)
        and all(isinstance(part, int) for part in value)
    ):
        return value[0], value[1], value[2]
    return None
