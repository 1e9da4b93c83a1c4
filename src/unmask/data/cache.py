"""A cache of facts about files, in the user's cache folder; entries are valid until the files change.

Losing the cache only costs time, so a cache that cannot be written is not an error.
"""

import contextlib
import functools
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pyarrow as pa
from pyarrow import feather

from unmask.errors import DataError
from unmask.files import clear_unfinished, parse_json, write_whole
from unmask.files import read_json as read_json_file


def cache_folder() -> Path:
    """The user's cache folder for this package; it may not exist, and it may not be writable.

    A user without a home folder, as in some containers, has a private one among the temporary files.
    """
    try:
        return Path(platformdirs.user_cache_dir("unmask"))
    except RuntimeError:
        return _private(Path(tempfile.gettempdir()) / f"unmask-{os.getuid()}")


def _private(folder: Path) -> Path:
    """The folder, made if need be; a place that nobody can write to if others could have put files there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return _NOWHERE
    is_private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700
    return folder if is_private and status.st_uid == os.getuid() else _NOWHERE


_NOWHERE = Path(os.devnull) / "unmask"


@functools.cache
def clear_leftovers(folder: Path) -> None:
    """Delete what killed processes left in a folder of the cache, once in the life of this process."""
    clear_unfinished(folder)


def size_and_time(file: Path) -> tuple[int, int]:
    """Size in bytes and time of last change of a file; both stay equal until somebody writes to it."""
    return size_and_change(file.stat())


def size_and_change(status: os.stat_result) -> tuple[int, int]:
    """The same from a stat result. Includes ctime, because tools can set mtime back after a change."""
    return status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)


def read_json(name: str) -> Any:
    """What `write_json` stored under this name; None if it is missing or damaged."""
    clear_leftovers(cache_folder())
    try:
        return read_json_file(cache_folder() / f"{name}.json")
    except (OSError, DataError):
        return None


def write_json(name: str, content: Any) -> None:
    """Store JSON values under a name."""
    store(
        cache_folder() / f"{name}.json",
        lambda path: path.write_text(json.dumps(content), encoding="utf-8"),
    )


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]] | None:
    """The table that `write_table` wrote, with its note; None if it is missing or damaged."""
    try:
        # as bytes, because a path may not be valid text
        with pa.OSFile(os.fsencode(path)) as file:
            table = feather.read_table(file)
        return table, dict(parse_json((table.schema.metadata or {})[b"unmask"], str(path)))
    except (OSError, pa.ArrowException, DataError, ValueError, KeyError, TypeError):
        return None


def write_table(path: Path, table: pa.Table, note: dict[str, Any]) -> None:
    """Write a table, with a note in its metadata."""
    table = table.replace_schema_metadata({"unmask": json.dumps(note)})
    with pa.OSFile(os.fsencode(path), "wb") as file:
        feather.write_feather(table, file, compression="uncompressed")


def store(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file of the cache atomically; ignore a cache folder that cannot be written."""
    clear_leftovers(path.parent)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
