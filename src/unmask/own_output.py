"""What unmask itself writes: recognised by content, so that it is never read as input."""

import os
from collections.abc import Collection
from pathlib import Path

from unmask.errors import DataError
from unmask.files import read_json

MARK = {"Software": "unmask"}
"""Text in every PNG that we draw."""

_CHUNK = b"tEXtSoftware\0" + MARK["Software"].encode()
_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD = 4096  # bytes; the text stands before the pixels
PICTURE = ".png"
"""The ending of pictures that carry the mark."""

_COMPANIONS = (".json", ".csv", ".md")
_LARGEST_SPEC = 2**20


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run: a `spec.json` with our fields."""
    try:
        spec = read_json(folder / "spec.json", _LARGEST_SPEC)
    except (OSError, DataError):
        return False
    return isinstance(spec, dict) and {"spec_version", "unmask_version"} <= spec.keys()


def called_as_ours(name: str, names: Collection[str]) -> bool:
    """Whether a picture is called as our commands call theirs, if nobody chose another name.

    Those are a sheet of reconstructions or of neighbours, a loss curve, a confusion matrix, a sheet of mistakes, or a picture next to its figures. `names` are all in its folder.
    """
    stem, ending = os.path.splitext(name)  # noqa: PTH122 - faster for a million files
    if ending.lower() != PICTURE:
        return False
    stem = stem.removesuffix("-sizes").removesuffix("-mistakes")
    called = stem in ("sheet", "loss", "neighbours") or stem.startswith(("confusion-", "mistakes-"))
    return called or any(stem + end in names for end in _COMPANIONS)


def is_marked(path: Path) -> bool:
    """Whether a file is a picture that we drew."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head.startswith(_PNG) and _CHUNK in head
