"""Locks on files, so that only one process works in a folder; the system frees a lock when its process ends in any way."""

import errno
import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_FAR = (
    2**30
)  # the byte that Windows locks: nobody else could read it, and readers want the name at the beginning


class Taken(Exception):
    """Another process holds a lock; the text of the error names it."""


@contextmanager
def locked(path: Path) -> Generator[str]:
    """Lock a file, which then names this process; loading processes that are forked do not inherit the lock.

    Yields an empty text, or a note if the file system has no locks; then nothing keeps other processes out.

    Raises:
        Taken: if another process holds the lock.
        OSError: if the file cannot be opened for writing.
    """
    with path.open("a+", encoding="utf-8", errors="backslashreplace") as file:
        note = ""
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _TAKEN:
                file.seek(0)
                raise Taken(file.read().strip() or "another process") from None
            note = (
                f"{path.parent} is on a file system without locks ({error.strerror}), so make sure that no other process "
                "writes there"
            )
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield note


def _lock(file: IO[str]) -> None:
    """Lock an open file until it is closed, or raise OSError at once."""
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif sys.platform == "win32":
        import msvcrt

        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        raise OSError(errno.ENOSYS, "this Python has no module fcntl")
