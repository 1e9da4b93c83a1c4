"""A cache of facts about files, in the user's cache folder; entries are valid until the files change.

Losing the cache only costs time, so a cache that cannot be written is not an error.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pyarrow as pa
from pyarrow import feather

from unmask.files import clear_unfinished, write_whole


def cache_folder() -> Path:
    """The user's cache folder for this package."""
    return Path(platformdirs.user_cache_dir("unmask"))


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
        return json.loads((cache_folder() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def write_json(name: str, content: Any) -> None:
    """Store JSON values under a name."""
    store(cache_folder() / f"{name}.json", lambda path: path.write_text(json.dumps(content)))


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]] | None:
    """The table that `write_table` wrote, with its note; None if it is missing or damaged."""
    try:
        table = feather.read_table(path)
        return table, dict(json.loads((table.schema.metadata or {})[b"unmask"]))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None


def write_table(path: Path, table: pa.Table, note: dict[str, Any]) -> None:
    """Write a table, with a note in its metadata."""
    table = table.replace_schema_metadata({"unmask": json.dumps(note)})
    feather.write_feather(table, str(path), compression="uncompressed")


def store(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file of the cache atomically; ignore a cache folder that cannot be written."""
    clear_leftovers(path.parent)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
