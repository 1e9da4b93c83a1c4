"""Which files a name of data stands for, and what data sets call their splits."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from unmask.errors import DataError

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation", "dev", "eval")

SPLITS: dict[str, tuple[str, ...]] = {"train": TRAIN, "test": TEST}
"""Our two splits, and the names that mean them, the first found being taken."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def meaning(word: str) -> str | None:
    """The split that a word means: train, test or none."""
    lower = word.lower()
    return next((split for split, names in SPLITS.items() if lower in names), None)


def split_of(file: Path) -> str | None:
    """The split that a file's name begins with, or its folder is called."""
    word = re.match(r"[A-Za-z]+", file.name)
    return meaning(word[0]) if word and meaning(word[0]) else meaning(file.parent.name)


def find_files(path: str, ending: str) -> list[Path]:
    """The files that a name, a folder or a pattern stands for, sorted.

    Raises:
        DataError: if there is none, or one of a range is missing.
    """
    if _RANGE.search(path):
        files = [Path(name).expanduser() for name in _expanded(path)]
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(files)} files of {path} are missing, the first is "
                f"{missing[0]}; copy it there, or shorten the range"
            )
        return files
    root = Path(path).expanduser()
    if root.is_dir():
        files = sorted(file for file in root.rglob(f"*{ending}") if not _hidden(file, root))
        if not files:
            raise DataError(f"no {ending} file found in {path}")
        return files
    if root.is_file():
        return [root]
    files = sorted(Path(name) for name in glob.glob(str(root)))  # noqa: PTH207 - a user's pattern
    if not files:
        raise DataError(f"{path} does not exist; DATA is a file, a folder, or a pattern of files")
    return files


def _expanded(pattern: str) -> Iterator[str]:
    """Every name that ranges such as {000..010} stand for, as a shell would write them."""
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found[1], found[2]
    if int(last) < int(first):
        raise DataError(f"the range {found[0]} of {pattern} runs backwards")
    for number in range(int(first), int(last) + 1):
        width = len(first) if first.startswith("0") else 0
        yield from _expanded(
            f"{pattern[: found.start()]}{number:0{width}d}{pattern[found.end() :]}"
        )


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
