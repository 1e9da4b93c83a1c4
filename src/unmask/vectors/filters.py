"""Conditions on the columns of a folder of vectors, such as label=wheat or width>500."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool
from numpy.typing import NDArray

from unmask.errors import SettingsError, did_you_mean, listed
from unmask.vectors.parts import COLUMNS

_NUMBERS = ("width", "height")
_FORM = re.compile(r"\s*(\w+)\s*([=<>])(.*)", re.DOTALL)
_SHOWN = 5


class Condition(NamedTuple):
    """A column, compared with a value."""

    column: str
    sign: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.value}"


def parse_condition(text: str) -> Condition:
    """The condition in a text.

    Raises:
        SettingsError: for another form, an unknown column, or a sign or value that does not fit the column.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"--where {text!r} is no condition; write COLUMN=VALUE, COLUMN<NUMBER or COLUMN>NUMBER in quotes, such as "
            "label=wheat or 'width>500'"
        )
    column, sign, value = match[1], match[2], match[3].strip()
    if column not in COLUMNS:
        raise SettingsError(
            f"--where {text!r}: there is no column {column!r}; {did_you_mean(column, COLUMNS)}"
        )
    if column in _NUMBERS:
        try:
            float(value)
        except ValueError:
            raise SettingsError(
                f"--where {text!r}: {column} is a number of pixels, got {value!r}"
            ) from None
    elif sign != "=":
        raise SettingsError(f"--where {text!r}: {column} is text, and only = compares text")
    return Condition(column, sign, value)


def matching(columns: pa.Table, conditions: Sequence[Condition]) -> NDArray[np.int64] | None:
    """The rows that meet all conditions, rising; None without conditions.

    Raises:
        SettingsError: if no row meets them, with the values that there are.
    """
    if not conditions:
        return None
    meets = np.ones(len(columns), dtype=bool)
    for condition in conditions:
        meets &= _meets(columns, condition)
        if not meets.any():
            raise SettingsError(_nothing(columns, condition, conditions))
    return np.flatnonzero(meets)


def _meets(columns: pa.Table, condition: Condition) -> Bool[NDArray[np.bool_], " n"]:
    column = columns[condition.column]
    if condition.column in _NUMBERS:
        values, number = column.to_numpy(), float(condition.value)
        if condition.sign == "=":
            return values == number
        return values < number if condition.sign == "<" else values > number
    if pa.types.is_list(column.type):
        return np.array([condition.value in (one or ()) for one in column.to_pylist()], dtype=bool)
    import pyarrow.compute as pc

    equal: Any = pc.equal(column, condition.value)  # pyright: ignore[reportAttributeAccessIssue]
    return equal.fill_null(False).to_numpy(zero_copy_only=False).astype(bool)


def _nothing(columns: pa.Table, condition: Condition, conditions: Sequence[Condition]) -> str:
    """Why no picture is left, in words."""
    alone = _meets(columns, condition).any()
    if alone:
        return f"no picture meets all of {listed(map(str, conditions))}; leave one out"
    values = columns[condition.column]
    if condition.column in _NUMBERS:
        low, high = values.to_numpy().min(), values.to_numpy().max()
        return f"no picture has {condition}; {condition.column} is from {low:,} to {high:,} there"
    flat = [
        value
        for one in values.to_pylist()
        for value in (one if isinstance(one, list) else [one])
        if value is not None
    ]
    if not flat:
        return f"no picture has {condition}, because no {condition.column} is known there"
    common = [str(value) for value, _ in Counter(flat).most_common(_SHOWN)]
    near = did_you_mean(condition.value, dict.fromkeys(map(str, flat))).partition("?")
    question = f"{near[0]}? " if near[1] else ""
    return f"no picture has {condition}; {question}the most common values are {', '.join(common)}"
