"""CSV files that say where pictures lie: their columns, and numbers that are checked with the line they stand in."""

import csv
import math
from glob import escape
from os.path import isfile
from pathlib import Path

from unmask.errors import DataError

COLUMNS: dict[str, tuple[str, ...]] = {
    "file": ("file_name", "file", "filename", "image", "name"),
    "x": ("x",),
    "y": ("y",),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng", "long"),
    "heading": ("heading", "heading_deg"),
    "ground size": ("ground_size", "width_m"),
    "height": ("height", "height_m"),
}
"""What a column may be called, by what it says."""

_FIRST_LINE = 2  # after the names of the columns


class PlaceTable:
    """The rows of a file; cells by what their columns say."""

    def __init__(self, file: Path, what: str = "") -> None:
        """`what` is the flag that names the file, if there is one; raises DataError if it cannot be read or has no rows."""
        self.file = file
        try:
            with file.open(newline="", encoding="utf-8-sig") as opened:
                self._rows = list(csv.DictReader(opened))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{what}{file} cannot be read as CSV ({error})") from None
        if not self._rows:
            raise DataError(f"{what}{file} has no rows")
        self.names = {name.strip().lower(): name for name in self._rows[0] if name}
        self.used = {
            what: next((self.names[name] for name in spellings if name in self.names), None)
            for what, spellings in COLUMNS.items()
        }

    def __len__(self) -> int:
        return len(self._rows)

    def line(self, row: int) -> int:
        """The number of a row's line."""
        return row + _FIRST_LINE

    def text(self, row: int, what: str) -> str:
        """A cell without spaces around it; empty if there is no such column."""
        name = self.used[what]
        return (self._rows[row].get(name) or "").strip() if name else ""

    def number(self, row: int, what: str) -> float | None:
        """A cell as a number; None if it is empty. Raises DataError with the line."""
        text = self.text(row, what)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{self.file}, line {self.line(row)}: {self.used[what]} must be a number, got {text!r}"
            )
        return value

    def picture(self, row: int) -> Path:
        """The picture of a row, beside the file or in one of the folders there; raises DataError if it is not there."""
        root, name = self.file.parent, self.text(row, "file")
        if name and isfile(root / name):  # noqa: PTH113 - False also for what cannot be a name
            return root / name
        try:
            others = sorted(root.glob(f"*/{escape(name)}")) if name and "/" not in name else []
        except (OSError, ValueError):
            others = []
        if len(others) != 1:
            where = "is in several folders" if others else "is not there"
            raise DataError(f"line {self.line(row)} names {name!r}, which {where} in {root}")
        return others[0]
