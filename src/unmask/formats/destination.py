"""Where folders of weights and pages are put once they are complete: new ones by one rename, existing ones file by file."""

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from unmask.errors import ResourceError, RunError, SettingsError

_FILE, _GRAPH = ".pth", ".onnx"


def check_free(destination: Path, to: str) -> None:
    """Refuse a destination that exists, or that a format cannot be written to; `to` is its public name.

    Raises:
        RunError: if the destination exists and is not an empty folder.
        SettingsError: for a file, if the format is a folder of files.
    """
    if to == "onnx" and destination.suffix == _GRAPH:
        raise SettingsError(
            f"--to onnx writes a folder of files; give one, such as {destination.with_suffix('')}"
        )
    is_file = destination.suffix == _FILE
    if is_file and to != "fair":
        raise SettingsError(
            f"{destination} is a file, and only --to fair writes a single file; give a folder"
        )
    if is_file and any(path.exists() for path in (destination, destination.with_suffix(".md"))):
        raise RunError(f"{destination} or its .md exists already; give another file")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise RunError(f"{destination} exists and is not empty; give another folder")


@contextmanager
def writing_beside(destination: Path) -> Generator[Path]:
    """A temporary folder on the disk of a destination, for `put`; it is gone afterwards.

    Raises:
        ResourceError: if something cannot be written.
    """
    writing: Path | None = None
    try:
        place = destination.resolve()  # of a link its target, and "." has a parent then
        place.parent.mkdir(parents=True, exist_ok=True)
        writing = Path(tempfile.mkdtemp(prefix=f".writing-{place.name}-", dir=_room(place)))
        yield writing
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ResourceError(
            f"{destination} cannot be written ({reason}); make room on that disk or give another folder"
        ) from None
    finally:
        if writing is not None:
            shutil.rmtree(writing, ignore_errors=True)


def put(writing: Path, destination: Path, earlier: Collection[str] = ()) -> None:
    """Move a complete folder to its place.

    A destination that exists is filled, not replaced: shells may stand in it, and it may be a mount point.

    Args:
        writing: from `writing_beside`.
        destination: new or empty but for what is replaced.
        earlier: names there that are deleted once all is in its place, and else moved back.

    Raises:
        OSError: if something cannot be moved, or the destination holds anything else.
    """
    place = destination.resolve()
    if not place.exists():
        writing.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        writing.rename(place)
        return
    if {path.name for path in place.iterdir() if path != writing} - set(earlier):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    # outside of what is deleted if anything fails
    old = Path(tempfile.mkdtemp(prefix=f".earlier-{place.name}-", dir=writing.parent))
    moves = [(place / name, old / name) for name in earlier]
    moves += [(path, place / path.name) for path in sorted(writing.iterdir())]
    try:
        for source, target in moves:
            source.rename(target)
    except BaseException:
        for source, target in reversed(moves):
            if target.exists() and not source.exists():
                target.rename(source)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _room(place: Path) -> Path:
    """Where folders can be created that can be renamed into a place: beside it, or else in it."""
    inside = place.is_mount() or (place.is_dir() and not os.access(place.parent, os.W_OK))
    return place if inside else place.parent
