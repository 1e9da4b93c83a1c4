"""Who works on what, where several processes or machines share a folder: a claim file for each run."""

import json
import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from unmask.errors import ResourceError

_SIGN_OF_LIFE = 15.0  # seconds
_DEAD_AFTER = 120.0


@contextmanager
def claimed(folder: Path) -> Generator[bool]:
    """Whether what is done in a folder is this process's to do; if so, until the end of the context.

    A claim is a file `claim-N`, made only if it is not there, so that of several processes one wins. Its holder touches it
    four times a minute. One whose process has ended, or that nobody touched for two minutes, is dead:
    the next number is then free to be taken.

    Raises:
        ResourceError: if the folder cannot be written.
    """
    mine = _take(folder)
    if mine is None:
        yield False
        return
    ended = threading.Event()
    alive = threading.Thread(target=_stay_alive, args=(mine, ended), daemon=True)
    alive.start()
    try:
        yield True
    finally:
        ended.set()
        alive.join()
        for claim in _claims(folder):
            claim.unlink(missing_ok=True)


def _take(folder: Path) -> Path | None:
    """The claim made, or None if a living process holds the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        *_, newest = [None, *_claims(folder)]
        if newest is not None and not _dead(newest):
            return None
        mine = folder / f"claim-{_number(newest) + 1 if newest else 0}"
        who = {"host": socket.gethostname(), "process": os.getpid()}
        with mine.open("x") as file:
            file.write(json.dumps(who))
        return mine
    except FileExistsError:
        return None
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); mend that and give the same command again"
        ) from None


def _claims(folder: Path) -> list[Path]:
    return sorted(folder.glob("claim-*"), key=_number)


def _number(claim: Path) -> int:
    return int(claim.name.rpartition("-")[2])


def _dead(claim: Path) -> bool:
    """Whether its holder is gone."""
    try:
        silent = time.time() - claim.stat().st_mtime > _DEAD_AFTER
        text = claim.read_text()
    except FileNotFoundError:
        return False  # given back this moment; the next look will tell
    try:
        who = json.loads(text)
    except ValueError:
        return silent  # being written, or killed while it was
    here = who["host"] == socket.gethostname()
    return silent or (here and not _runs(who["process"]))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stay_alive(claim: Path, ended: threading.Event) -> None:
    while not ended.wait(_SIGN_OF_LIFE):
        try:
            os.utime(claim)
        except OSError:  # a folder that cannot be reached for a while
            continue
