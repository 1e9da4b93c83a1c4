"""The list of images that could not be used, with a limit on their number."""

import csv
from pathlib import Path

from unmask.errors import DataError


class SetAside:
    """The skipped files in `set_aside.csv`, each once, with the reason."""

    def __init__(self, path: Path, total: int, limit: float) -> None:
        """`total` is the number of image files; if more than a share of `limit` is skipped, the run stops."""
        self.path, self.total, self.limit = path, total, limit
        self.names: set[str] = set()
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.names = {row["file"] for row in csv.DictReader(file) if row["file"]}

    def add(self, failures: list[tuple[str, str]]) -> None:
        """Add (name, reason) pairs.

        Raises:
            DataError: if too many files are skipped; the list is written before.
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
            name, reason = next(reversed(new.items()))
            raise DataError(
                f"{len(self.names)} of {self.total} images cannot be used, more than the allowed "
                f"{self.limit:.0%}; the last is {name}: {reason}. {self.path} lists them all; "
                "repair or remove them, or allow more with --max-set-aside"
            )


def _plain(text: str) -> str:
    """Text that UTF-8 can encode, even if a file name is not valid text."""
    return text.encode("utf-8", "backslashreplace").decode()
