"""Walking through a folder of images: visible files that unmask did not write."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.errors import DataError
from unmask.own_output import PICTURE, called_as_ours, is_marked, is_run

LARGEST_FILE = 2**31
"""Bytes of the largest encoded image that is read."""

_MOST_LOOKED_INTO = 10_000
"""PNGs of a data set that are all looked into; of more, those that are called as our commands call theirs."""

_COUNTED = IMAGE_ENDINGS | {".npy"}


def walk(
    root: Path, refused: list[tuple[str, str]], own: list[str]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every visible file that unmask did not write; a folder that links reach twice is read once."""
    pictures: list[tuple[str, os.DirEntry[str], bool]] = []
    for name, entry, called in visible(root, refused, own):
        if name.lower().endswith(PICTURE):
            pictures.append((name, entry, called))
        else:
            yield name, entry
    # opening a million files would take minutes on a network drive, each time that a run starts
    all_of_them = len(pictures) <= _MOST_LOOKED_INTO
    for name, entry, called in pictures:
        if (called or all_of_them) and is_marked(Path(entry.path)):
            own.append(name)
        else:
            yield name, entry


def visible(
    root: Path, refused: list[tuple[str, str]], own: list[str]
) -> Iterator[tuple[str, os.DirEntry[str], bool]]:
    """Every visible file outside of our runs, in order, and whether it is called as pictures of ours are."""
    seen: set[tuple[int, int]] = set()
    waiting = [(os.fspath(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - faster for a million folders
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = {entry.name: entry for entry in scan}
        except OSError as error:
            refused.append((folder, f"cannot be read ({error.strerror})"))
            continue
        if prefix and "spec.json" in entries and is_run(Path(folder)):
            own.append(prefix)
            continue
        for name, entry in sorted(entries.items()):
            if name.startswith(".") or name in ("Thumbs.db", "desktop.ini"):
                continue
            if _is_folder(entry):
                waiting.append((entry.path, f"{prefix}{name}/"))
            else:
                yield prefix + name, entry, called_as_ours(name, entries)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False


def why_not(status: os.stat_result, largest: int | None = None) -> str | None:
    """Why a file is not read: one policy for the files of a folder and for a single file; None if it is."""
    if not stat.S_ISREG(status.st_mode):
        return "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
    if largest is not None and status.st_size > largest:
        size, limit = (number / 2**30 for number in (status.st_size, largest))
        return f"has {size:.1f} GiB, more than one image may have ({limit:.0f} GiB)"
    return None


def check_file(path: Path, largest: int | None = LARGEST_FILE) -> None:
    """Refuse a single file that a folder would refuse, before it is opened.

    Raises:
        DataError: with the reason, without the name.
        OSError: if there is no such file.
    """
    status = path.stat()
    if reason := why_not(status, largest):
        raise DataError(reason)
    if status.st_size == 0:
        raise DataError("empty (0 bytes)")


def folders_in(root: Path) -> list[str]:
    """The visible subfolders, sorted."""
    return sorted(e.name for e in _entries_of(root) if not e.name.startswith(".") and _is_folder(e))


def files_in(root: Path) -> Iterator[str]:
    """The names of the files directly in a folder."""
    return (entry.name for entry in _entries_of(root) if not _is_folder(entry))


def _entries_of(root: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            yield from entries
    except OSError:  # reported when the folder is listed
        return


def is_image(name: str) -> bool:
    """Whether a file looks like an image by its name."""
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - faster for a million files
    return ending in _COUNTED and not name.startswith(".")


def count_images(folder: Path) -> int:
    """The number of files in a folder and its subfolders that look like images."""
    return sum(is_image(entry.name) for _, entry in walk(folder, [], []))
