"""The entries of a JSON file one by one, so that a file of hundreds of megabytes never is in memory as a whole."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from unmask.errors import DataError

_CHUNK = 2**20  # characters read at a time
_LARGEST = 2**26  # characters of one entry
_SPACE = re.compile(r"[ \t\n\r]*")
_TAIL = (
    16  # characters at the end of what was read, where an error may only mean that more is to come
)


def entries(path: Path) -> Iterator[tuple[str, Any]]:
    """(key, value) of each value of the object in a file; of a list, (key, element) for each of its elements.

    Memory is that of the largest element, not of the file.

    Raises:
        DataError: if the file cannot be read, or is not a JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Reader(file, path).entries()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not valid JSON: it is not text in UTF-8") from None


class _Reader:
    """A window of the text, which moves forward."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._before = "", 0, 0
        self._decode = json.JSONDecoder().raw_decode

    def entries(self) -> Iterator[tuple[str, Any]]:
        self._take("{")
        if self._next() == "}":
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._wrong("a key is not text")
            self._take(":")
            if self._next() == "[":
                yield from ((key, element) for element in self._elements())
            else:
                yield key, self._value()
            if self._take(",}") == "}":
                return

    def _elements(self) -> Iterator[Any]:
        self._take("[")
        if self._next() == "]":
            self._take("]")
            return
        while True:
            yield self._value()
            if self._take(",]") == "]":
                return

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _take(self, expected: str) -> str:
        """Step over one of the expected characters."""
        character = self._next()
        if not character or character not in expected:
            raise self._wrong(f"expected {' or '.join(expected)}, got {character or 'its end'}")
        self._at += 1
        return character

    def _value(self) -> Any:
        """Decode the next value, reading on until it is complete."""
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if end + _TAIL < len(self._text) or not self._read():  # a number may go on
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _TAIL
                place = self._before + error.pos
                if not is_cut or not self._read():
                    raise self._wrong(error.msg, place) from None
            except RecursionError:
                raise self._wrong("it is nested too deeply") from None
            except ValueError as error:  # an integer of thousands of digits
                raise self._wrong(str(error)) from None

    def _read(self) -> bool:
        """Read more, and forget what is behind; False at the end of the file."""
        left = len(self._text) - self._at
        if left > _LARGEST:
            raise self._wrong(f"an entry has more than {_LARGEST:,} characters")
        more = self._file.read(max(_CHUNK, left))
        if more:
            self._before += self._at
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _wrong(self, what: str, place: int | None = None) -> DataError:
        place = self._before + self._at if place is None else place
        end = " (perhaps it was not copied in full)" if not self._text[self._at :].strip() else ""
        return DataError(f"{self._path} is not valid JSON: {what} at character {place + 1:,}{end}")
