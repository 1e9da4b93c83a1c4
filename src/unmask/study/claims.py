"""Claim files, so that several processes or machines that share a folder do not work on the same run."""

import json
import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unmask.errors import DataError, ResourceError
from unmask.files import clear_unfinished, read_json

_HEARTBEAT = 15.0  # seconds
_DEAD_AFTER = 120.0  # seconds without a heartbeat


@contextmanager
def claimed(folder: Path) -> Generator[bool]:
    """Try to claim a folder for this process until the end of the context; yields whether it succeeded.

    What a killed owner had not written to the end is deleted.

    A claim is a file `claim-N`, created exclusively, so that only one of several processes succeeds. Its owner touches it
    four times a minute. A claim is dead if its process has ended, or if nobody touched it for two minutes; then another
    process may claim the next number.

    Raises:
        ResourceError: if the folder cannot be written.
    """
    claim = _claim(folder)
    if claim is None:
        yield False
        return
    clear_unfinished(folder)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_touch_regularly, args=(claim, ended), daemon=True)
    heartbeat.start()
    try:
        yield True
    finally:
        ended.set()
        heartbeat.join()
        for claim in _claims(folder):
            claim.unlink(missing_ok=True)


def clear_dead(folder: Path) -> None:
    """Delete the claims that killed processes left in a folder where nothing is left to do."""
    for claim in _claims(folder):
        if _dead(claim):
            claim.unlink(missing_ok=True)


def _claim(folder: Path) -> Path | None:
    """The new claim, or None if a living process has the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        *_, newest = [None, *_claims(folder)]
        if newest is not None and not _dead(newest):
            return None
        claim = folder / f"claim-{_number(newest) + 1 if newest else 0}"
        owner = {"host": socket.gethostname(), "process": os.getpid()}
        with claim.open("x", encoding="utf-8") as file:
            file.write(json.dumps(owner))
        return claim
    except FileExistsError:
        return None
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); make it writable and run the same command again"
        ) from None


def _claims(folder: Path) -> list[Path]:
    return sorted(folder.glob("claim-*"), key=_number)


def _number(claim: Path) -> int:
    return int(claim.name.rpartition("-")[2])


def _dead(claim: Path) -> bool:
    """Whether the owner of a claim has ended."""
    try:
        silent = time.time() - claim.stat().st_mtime > _DEAD_AFTER
        owner = _owner(claim)
    except FileNotFoundError:
        return False  # released just now; the caller tries again
    if not isinstance(owner, dict) or not isinstance(process := owner.get("process"), int):
        return silent
    return silent or (owner.get("host") == socket.gethostname() and not _runs(process))


def _owner(claim: Path) -> Any:
    """What a claim says; None while the owner is still writing it, or if it was killed while writing."""
    try:
        return read_json(claim)
    except DataError:
        return None


def _runs(process: int) -> bool:
    if os.name == "nt":
        return True  # there, os.kill would end the process; the heartbeat tells
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _touch_regularly(claim: Path, ended: threading.Event) -> None:
    while not ended.wait(_HEARTBEAT):
        try:
            os.utime(claim)
        except OSError:  # a network folder may be unreachable for a while
            continue
