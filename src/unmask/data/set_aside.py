"""The list of images that could not be used, and when to stop because of it."""

import csv
from pathlib import Path

from unmask.errors import DataError


class SetAside:
    """Files left out, with reasons, in `set_aside.csv`; every file once."""

    def __init__(self, path: Path, total: int, limit: float) -> None:
        """`total` counts the image files found; past `limit`, a share of them, the run stops."""
        self.path, self.total, self.limit = path, total, limit
        self.names: set[str] = set()
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.names = {row["file"] for row in csv.DictReader(file) if row["file"]}

    def add(self, failures: list[tuple[str, str]]) -> None:
        """Note (name, reason) pairs.

        Raises:
            DataError: once too many are out; the list is written by then.
        """
        plain = [(_plain(name), _plain(reason)) for name, reason in failures]
        new = {name: reason for name, reason in plain if name not in self.names}
        if not new:
            return
        started = self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if not started:
                writer.writerow(["file", "reason"])
            writer.writerows(new.items())
        self.names |= set(new)
        if len(self.names) > self.limit * self.total:
            raise DataError(
                f"{len(self.names)} of {self.total} images cannot be used, more than the "
                f"{self.limit:.0%} allowed; the last is {next(reversed(new.items()))}. "
                f"{self.path} lists them all: mend or remove them, or allow more with --max-set-aside"
            )


def _plain(text: str) -> str:
    """Text that can be written and read back, also where a file's name is not valid text."""
    return text.encode("utf-8", "backslashreplace").decode()
