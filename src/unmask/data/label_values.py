"""What the value of a label means, whichever type a file stores it as: one class, several, or not known.

All readers of labels ask here, so that 3, 3.0, "3", b"3" and a decimal 3 are one class in each of them. The result is a
word: "" if the class is not known, the name of a class, or several classes as `data.labels.as_word` encodes them.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from unmask.annotations import UNKNOWN, ClassLabels
from unmask.data.labels import SEPARATOR, Labels, as_word, several_labels, words_of
from unmask.errors import DataError
from unmask.files import parse_json

LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "category", "classes")
"""Names of columns of labels; the first that fits is used. Runs depend on the order, so new names come last."""

NOT_CLASSES = "not read as classes"
"""What notes say of labels that are not used, so that an error about missing labels can repeat them."""

_NEGATIVE = re.compile(r"-[0-9]+")
_LONGEST = 1000  # characters of the name of a class
_LONGEST_LIST = 2**16  # bytes of a list as JSON
_SHOWN = 60  # characters of a value in a message


def name_rank(name: str, names: Sequence[str]) -> int:
    """The place of a column's name among known names; in another case it comes after all that are spelled so."""
    if name in names:
        return names.index(name)
    lower = name.lower()
    return len(names) + (names.index(lower) if lower in names else len(names))


def label_word(value: object) -> str:
    """The word that a label means.

    None, NaN and empty text are not known. A list is several classes, also as JSON text such as "[0, 1]"; its unknown
    elements are left out, and a list of nothing else is not known.

    Raises:
        DataError: if it is not a class, such as 0.5, a date or a list of lists.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str | bytes) and (listed := json_list(value)) is not None:
        value = listed
    if not isinstance(value, list | tuple):
        return class_word(value)
    words = [class_word(one) for one in value]
    if words and not any(words):
        return ""
    return as_word(word for word in words if word)


def class_word(value: object) -> str:
    """The word of one class, as `label_word`."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return ""
        value = _whole(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise DataError(f"{shown(value)} is not a class, because it is not text") from None
    if not isinstance(value, int | str):
        raise DataError(f"{shown(value)} ({type(value).__name__}) is not a class")
    if isinstance(value, int) and value.bit_length() > 64:
        raise DataError("a number of more than 64 bits is not a class")
    word = str(value).replace(SEPARATOR, " ").strip()
    if len(word) > _LONGEST:
        raise DataError(f"a text of {len(word):,} characters is not the name of a class")
    # a lone half of a surrogate pair, which JSON can hold, cannot be stored or printed
    return word.encode(errors="backslashreplace").decode()


def _whole(value: float | Decimal) -> int:
    """A whole number as an integer."""
    if math.isinf(value):
        raise DataError(f"{value} is not a class")
    if value != int(value):
        raise DataError(f"{value} is not a class, because it is not a whole number")
    return int(value)


def json_list(text: str | bytes) -> list[Any] | None:
    """The list that a text holds as JSON, such as "[0, 1]"; None if it holds none."""
    start, end = ("[", "]") if isinstance(text, str) else (b"[", b"]")
    text = text.strip()
    if not (text.startswith(start) and text.endswith(end)):  # pyright: ignore[reportArgumentType]
        return None
    try:
        value = parse_json(text, "a label", _LONGEST_LIST)
    except DataError:
        return None
    return value if isinstance(value, list) else None


def shown(value: object) -> str:
    """A value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def numbered_labels(
    words: Sequence[str], names: Sequence[str], several: bool, where: str, *, text: bool = False
) -> Labels:
    """Labels from the numbers of classes whose names are known; a negative number, such as -1 or -100, is not known.

    `several` is whether images may have several classes. With `text`, a word is the name of a class before it is a number.

    Raises:
        DataError: for a class without a name.
    """
    digits = [str(number) for number in range(len(names))]
    numbers, named = ({key: i for i, key in enumerate(keys)} for keys in (digits, names))
    index = numbers | named if text else named | numbers
    classes = {one for word in set(words) for one in words_of(word)}
    negative = {one for one in classes if _NEGATIVE.fullmatch(one)}
    index |= dict.fromkeys({"", *(negative - named.keys() if text else negative)}, UNKNOWN)
    if odd := sorted(classes - index.keys()):
        raise DataError(
            f"label {odd[0]} of {where} has no class name: there are {len(names)} classes, counted from 0"
        )
    if not (several or any(word.startswith(SEPARATOR) for word in words)):
        values = np.array([index[word] for word in words], dtype=np.int64)
        return Labels(ClassLabels(names=tuple(names)), values)
    lists: list[list[str] | None] = []
    for word in words:
        found = [index[one] for one in words_of(word)]
        known = [digits[number] for number in found if number != UNKNOWN]
        lists.append(None if not word or (found and not known) else known)
    return several_labels(lists, digits, names)
