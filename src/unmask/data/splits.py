"""Finding the files of DATA, and recognising splits by name."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from unmask.errors import DataError

SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation", "dev", "eval"),
}
"""Our two splits and the names that they have in data sets; the first match wins."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def split_of(file: Path) -> str | None:
    """The split of a file, from the first word of its name or the name of its folder; else None."""
    first = re.match(r"[A-Za-z]*", file.name)
    words = [first[0] if first else "", file.parent.name]
    meanings = [split for word in words for split in SPLITS if word.lower() in SPLITS[split]]
    return meanings[0] if meanings else None


def find_files(path: str, ending: str) -> list[Path]:
    """The files of a path, a folder or a pattern, sorted.

    Raises:
        DataError: if there are none, or a file of a range is missing.
    """
    if _RANGE.search(path):
        files = [Path(name).expanduser() for name in _expanded(path)]
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(files)} files of {path} are missing, the first is "
                f"{missing[0]}; copy them there, or shorten the range"
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
        raise DataError(
            f"{path} does not exist; DATA must be a file, a folder or a pattern of files"
        )
    return files


def _expanded(pattern: str) -> Iterator[str]:
    """All names of a pattern with ranges such as {000..010}, expanded as in a shell."""
    match = _RANGE.search(pattern)
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


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
