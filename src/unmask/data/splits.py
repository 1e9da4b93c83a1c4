"""Finding the files of DATA, and recognising splits by name."""

import glob
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from unmask.asked import RANGE
from unmask.data.walk import visible
from unmask.errors import DataError

_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev", "eval"),
}
"""Splits, and the names that they have in data sets, in any case."""

T = TypeVar("T")


@dataclass(frozen=True)
class Division(Generic[T]):
    """Folders or files, divided into splits by their names."""

    parts: dict[str, list[T]]
    """Those of train and of test, as far as there are some; val serves as test if there is no test."""
    val: list[T]
    """Those of val, if test is used instead."""
    beside: list[T]
    """Those whose name is not that of a split."""
    trained: list[T] = field(default_factory=list)
    """Those of test or val that are for training, because none is called train."""


def meaning_of(name: str) -> str | None:
    """The split that a name stands for: train, test or val, in any case; else None."""
    lower = name.lower()
    return next((split for split, names in _NAMES.items() if lower in names), None)


def split_words() -> list[str]:
    """All names of splits, the longest first."""
    return sorted((name for names in _NAMES.values() for name in names), key=len, reverse=True)


def rank(name: str) -> tuple[int, str]:
    """Sorts the names of splits: the usual ones first, and lower case before upper case."""
    order = [known for names in _NAMES.values() for known in names]
    return order.index(name.lower()), name.swapcase()


def split_of(file: Path) -> str | None:
    """The split of a file, from the first word of its name or the name of its folder; else None."""
    return meaning_of(first_word(file.name)) or meaning_of(file.parent.name)


def first_word(name: str) -> str:
    """The letters that a name begins with."""
    match = re.match(r"[A-Za-z]*", name)
    return match[0] if match else ""


def divided(items: Iterable[T], split: Callable[[T], str | None]) -> Division[T]:
    """Divide items by their splits, with val as test if there is no test.

    Folders, shards and tables begin with this rule. What becomes of items of no split, and of all items if train or test is
    missing, each of them decides.
    """
    by: dict[str | None, list[T]] = {"train": [], "test": [], "val": [], None: []}
    for item in items:
        by[split(item)].append(item)
    test, val = (by["test"], by["val"]) if by["test"] else (by["val"], [])
    parts = {"train": by["train"], "test": test}
    return Division({name: part for name, part in parts.items() if part}, val, by[None])


def undivided(files: list[Path], division: Division[Path]) -> Division[Path]:
    """All files for training, because a split is missing."""
    named = [] if "train" in division.parts else division.parts.get("test", [])
    return Division({"train": files}, [], [], [*named, *division.val] if named else [])


def trained_notes(division: Division[Path]) -> tuple[str, ...]:
    """A note on files that are for training although their names say otherwise."""
    files = division.trained
    return (
        (f"{listed(files)} in the train split, because no file is called train",) if files else ()
    )


def listed(files: list[Path]) -> str:
    """Files as the subject of a sentence, with its verb."""
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"{files[0].name}{more} {'are' if more else 'is'}"


def find_files(path: str, ending: str) -> list[Path]:
    """The files of a path, a folder or a pattern, sorted; of a folder, those with this ending in any case.

    Raises:
        DataError: if there are none, or a file of a range is missing.
    """
    root = Path(path).expanduser()
    if RANGE.search(path) and not root.exists():
        files = [Path(name).expanduser() for name in _expanded(path)]
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(files)} files of {path} are missing, the first is "
                f"{missing[0]}; copy them there, or shorten the range"
            )
        return files
    if root.is_dir():
        found = (root / name for name, *_ in visible(root, [], []) if name.lower().endswith(ending))
        files = sorted(file for file in found if file.is_file())
        if not files:
            raise DataError(f"no {ending} file found in {path}")
        return files
    if root.is_file():
        return [root]
    files = sorted(Path(name) for name in glob.glob(str(root)))  # noqa: PTH207 - a user's pattern
    if not files:
        raise DataError(
            f"{path} does not exist; give a file, a folder, or a pattern that matches files"
        )
    return files


def _expanded(pattern: str) -> Iterator[str]:
    """All names of a pattern with ranges such as {000..010}, expanded as in a shell."""
    match = RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match[1], match[2]
    if int(last) < int(first):
        raise DataError(
            f"the range {match[0]} of {pattern} is empty; write the smaller number first"
        )
    width = len(first) if first.startswith("0") else 0
    before, after = pattern[: match.start()], pattern[match.end() :]
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{before}{number:0{width}d}{after}")
