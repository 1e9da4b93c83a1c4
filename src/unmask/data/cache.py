"""What was found out about files once and holds until they change: kept in the user's cache folder.

Losing any of it costs time only, so a cache that cannot be written is no error.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pyarrow as pa
from pyarrow import feather

from unmask.files import write_whole


def cache_folder() -> Path:
    """The user's cache folder for this package."""
    return Path(platformdirs.user_cache_dir("unmask"))


def read_json(name: str) -> dict[str, Any] | None:
    """What `write_json` kept under this name; None if there is nothing, or it is damaged."""
    try:
        return json.loads((cache_folder() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def write_json(name: str, content: dict[str, Any]) -> None:
    """Keep a JSON object under a name."""
    _keep(cache_folder() / f"{name}.json", lambda path: path.write_text(json.dumps(content)))


def read_table(name: str) -> pa.Table | None:
    """What `write_table` kept under this name; None if there is nothing, or it is damaged."""
    path = cache_folder() / f"{name}.arrow"
    try:
        return feather.read_table(path) if path.exists() else None
    except (OSError, pa.ArrowInvalid):
        return None


def write_table(name: str, table: pa.Table) -> None:
    """Keep a table under a name."""
    _keep(
        cache_folder() / f"{name}.arrow",
        lambda path: feather.write_feather(table, str(path), compression="uncompressed"),
    )


def _keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole; a cache that cannot be written is no error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
