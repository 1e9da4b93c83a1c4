"""Values in other libraries' JSON files, which may hold anything: each is checked before it is used."""

import math
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.errors import DataError

_MOST = 65_536


class Config(NamedTuple):
    """A JSON object of another library, and the file that it is in."""

    path: Path
    values: dict[str, Any]

    def part(self, name: str) -> "Config | None":
        """An object inside of this one; None without it."""
        value = self.values.get(name)
        return Config(self.path, value) if isinstance(value, dict) and value else None

    def whole_number(self, name: str) -> int | None:
        """A whole number from 1 to 65,536; None without it.

        Raises:
            DataError: for another value.
        """
        value = self.values.get(name)
        if value is None or _is_count(value):
            return value
        raise self._wrong(name, f"a whole number from 1 to {_MOST:,}")

    def share(self, name: str) -> float | None:
        """A number between 0 and 1; None without it.

        Raises:
            DataError: for another value.
        """
        value = self.values.get(name)
        if value is None or (type(value) in (int, float) and 0 <= value <= 1):
            return value
        raise self._wrong(name, "a number between 0 and 1")

    def size(self, name: str, *, channels: bool = False) -> Size | None:
        """An image size: a number, or a height and a width, after the channels if these are listed too; None without it.

        Raises:
            DataError: for another value.
        """
        value = self.values.get(name)
        if value is None:
            return None
        sides: list[Any] = value if isinstance(value, list) else [value, value]
        sides = sides[1:] if channels else sides
        if len(sides) == 2 and all(map(_is_count, sides)):
            return Size(*sides)
        raise self._wrong(name, "an image size: one number, or height and width")

    def statistics(self, prefix: str) -> ChannelStatistics | None:
        """The statistics of pixels divided by 255; None without them.

        Raises:
            DataError: for values that are not numbers for each channel.
        """
        names = [f"{prefix}mean", f"{prefix}std"]
        if not all(name in self.values for name in names):
            return None
        for name in names:
            value = self.values[name]
            if not isinstance(value, list) or not value or not all(map(_is_finite, value)):
                raise self._wrong(name, "a list with a number for each channel")
        mean, std = (tuple(map(float, self.values[name])) for name in names)
        if len(mean) != len(std) or min(std) <= 0:
            raise self._wrong(names[1], "a number above 0 for each channel")
        low, high = (0.0,) * len(mean), (1.0,) * len(mean)
        return ChannelStatistics(
            mean=mean, std=std, low=low, high=high, levels=None, source=self.path.name
        )

    def _wrong(self, name: str, wanted: str) -> DataError:
        value = reprlib.repr(self.values[name])
        return DataError(
            f"{self.path} has {name} {value}, and it must be {wanted}; repair the file"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST


def _is_finite(value: Any) -> bool:
    if type(value) is int:
        return value.bit_length() < 64
    return type(value) is float and math.isfinite(value)
