"""Files that readers see whole or not at all, whatever interrupts the writing."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

_UNFINISHED = re.compile(r"\.\d+-.")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it to `path`.

    Readers find the old file or the new one, never a part, even if this process is killed. On an error the temporary
    file is removed and the old file stays. The folder must exist.
    """
    # the process id keeps two processes that write the same file apart
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        # before the rename: else a power cut could leave the new name on an empty file
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
        sync(path.parent)


def is_unfinished(path: Path) -> bool:
    """Whether this is a temporary file of `write_whole`, such as a killed process leaves."""
    return _UNFINISHED.match(path.name) is not None


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
