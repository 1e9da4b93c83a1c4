"""Where weights are written: a folder or file that is new, and complete or not there at all."""

import shutil
import tempfile
from collections.abc import Generator
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
    """A temporary folder beside a destination, for `put`; it is gone afterwards.

    Raises:
        ResourceError: if something cannot be written.
    """
    writing: Path | None = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        writing = Path(
            tempfile.mkdtemp(prefix=f".writing-{destination.name}-", dir=destination.parent)
        )
        yield writing
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ResourceError(
            f"{destination} cannot be written ({reason}); make room on that disk or give another folder"
        ) from None
    finally:
        if writing is not None:
            shutil.rmtree(writing, ignore_errors=True)


def put(writing: Path, destination: Path) -> None:
    """Move a complete folder to its place."""
    writing.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    writing.rename(destination)
