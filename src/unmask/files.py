"""Files that readers see whole or not at all, whatever interrupts the writing; and JSON from files, within bounds."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO, Any

from unmask.errors import DataError

try:
    import fcntl
except ImportError:  # Windows, which refuses to delete a file that another process writes
    fcntl = None

MAX_JSON = 64 * 2**20
"""Bytes of the largest JSON file that is read; a log of a million steps has more, and is read line by line."""

_UNFINISHED = re.compile(r"\.\d+-.")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it to `path`.

    Readers find the old file or the new one, never a part, even if this process is killed. On an error the temporary
    file is removed and the old file stays. The folder must exist.
    """
    # the process id keeps two processes that write the same file apart
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with _held(temporary):
            write(temporary)
            # before the rename: else a power cut could leave the new name on an empty file
            sync(temporary)
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text. A file name that is not valid text is written as in `ls -b`."""
    content = text.encode("utf-8", "backslashreplace")
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def unwritable(path: Path) -> str:
    """Why a file or folder cannot be created or changed at this path; empty if nothing speaks against it."""
    place = path.absolute()
    try:
        existing = next(part for part in (place, *place.parents) if part.exists())
    except PermissionError as error:
        return f"no permission to look into {error.filename}"
    except OSError as error:  # such as a name that is too long
        return error.strerror or str(error)
    if existing == place and existing.is_file():
        return "" if os.access(existing, os.W_OK) else f"{existing} is not writable"
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return f"{existing} is not a writable folder"
    try:
        tempfile.TemporaryFile(dir=existing).close()  # /proc allows it and then does not do it
    except OSError as error:
        return f"no file can be created in {existing} ({error.strerror})"
    return ""


def clear_unfinished(folder: Path) -> None:
    """Delete the temporary files of `write_whole` in a folder whose processes were killed.

    A process that still writes has its file locked. The system frees the lock when the process ends in any way, also on
    another machine, so process ids that are used again do not matter.
    """
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if is_unfinished(path)]:
            with contextlib.suppress(OSError), path.open("rb+") as file:
                _lock(file)
                path.unlink()


@contextlib.contextmanager
def _held(path: Path) -> Generator[None]:
    """Create a file and keep it locked against `clear_unfinished`; without locks, it is only created."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            file = stack.enter_context(path.open("wb"))
            with contextlib.suppress(OSError):
                _lock(file)
        yield


def _lock(file: IO[bytes]) -> None:
    """Lock an open file until it is closed, or raise OSError at once if another process holds it."""
    if fcntl is not None:
        # not `lockf`, whose locks end when this process closes any other handle of the file
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_unfinished(path: Path) -> bool:
    """Whether this is a temporary file of `write_whole`, such as a killed process leaves."""
    return _UNFINISHED.match(path.name) is not None


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """The JSON value in a file.

    Raises:
        DataError: see `parse_json`.
        OSError: if the file cannot be opened.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    return parse_json(content, str(path), most)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that need not be there; empty if there is none."""
    with contextlib.suppress(OSError, DataError):
        value = read_json(path)
        if isinstance(value, dict):
            return value
    return {}


def parse_json(content: str | bytes, name: str, most: int = MAX_JSON) -> Any:
    """A JSON value from text. Every reader of JSON goes through here, because a file may hold anything.

    Raises:
        DataError: with the name, if it has more than `most` bytes, is nested too deeply, or is not JSON.
    """
    if len(content) > most:
        raise DataError(f"{name} is larger than {most:,} bytes, too large for what it should hold")
    try:
        return json.loads(content)
    except RecursionError:
        raise DataError(f"{name} is not valid: it is nested too deeply") from None
    except (
        ValueError
    ) as error:  # also of bytes that are no text, and of integers with thousands of digits
        raise DataError(f"{name} is not valid JSON: {error}") from None


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    handle = os.open(path, os.O_RDWR)  # Windows cannot sync a file that is only read
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that: not on Windows and some networks."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def told_apart(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as it takes to tell them apart."""
    for parts in range(1, max(len(path.parts) for path in paths)):
        names = [Path(*path.parts[-parts:]).as_posix() for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
