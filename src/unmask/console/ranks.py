"""A training command that torchrun has started several times: one process prepares and speaks, all train."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from torch.distributed import ProcessGroup

from unmask.console.output import console, notes
from unmask.contracts import ImageSource
from unmask.errors import RunError, UnmaskError
from unmask.runs.folder import RunFolder
from unmask.training.distributed import everyones, firsts, here, joined, launched, lost

R = TypeVar("R")


class Told(NamedTuple):
    """What the first process tells the others of the run that it has prepared."""

    root: Path
    """The folder of the run."""
    run: str
    """The run as JSON."""
    step: int | None
    """The checkpoint that it starts from; None for the beginning."""


Waiting = ProcessGroup | None
_FAILED = "failed"


@contextmanager
def together() -> Generator[Waiting]:
    """Meet the other processes, of which only the first prints; errors say which process they are of.

    Gives what `prepared` lets the others wait in.
    """
    processes = launched()
    console.quiet = notes.quiet = not processes.first
    try:
        with joined() as waiting:
            yield waiting
    except UnmaskError as error:
        if processes.first:
            raise
        raise type(error)(f"{processes.name}: {error}") from None
    except RuntimeError as error:
        if not lost(error):
            raise
        if not processes.first:
            _leave()
        raise RunError(
            "another process of this run has ended or is silent, so the run stops; what it said is above or "
            "in its own output. The last checkpoint is whole: go on with --resume"
        ) from None


def prepared(
    prepare: Callable[[], R | None],
    tell: Callable[[R], Told],
    join: Callable[[Told], R],
    waiting: Waiting,
) -> R | None:
    """A run, or None if nothing is left to do: prepared by the first process, built again by the others.

    Raises:
        RunError: if another process cannot build the same, such as from other images.
    """
    if waiting is None:
        return prepare()
    ready, message, problem = None, None, ""
    if here().first:
        try:
            ready = prepare()
        except BaseException:
            firsts(_FAILED, waiting)
            raise
        message = None if ready is None else tell(ready)
    message = firsts(message, waiting)
    if message == _FAILED:
        _leave()
    if message is None:
        return None
    if not here().first:
        try:
            ready = join(message)
        except UnmaskError as error:
            problem = f"{here().name}: {error}"
    problems = [problem for problem in everyones(problem) if problem]
    if problems and not here().first:
        _leave()
    if problems:
        raise RunError(problems[0])
    return ready


def _leave() -> NoReturn:
    """End without a word: the first process says what is wrong, and is given the time to, for torchrun ends
    all others as soon as one has ended.
    """
    time.sleep(1)
    raise SystemExit(1)


def check_same(source: ImageSource, fingerprint: str) -> None:
    """Refuse other images than the first process has.

    Raises:
        RunError: saying where they lie.
    """
    if source.fingerprint != fingerprint:
        raise RunError(
            f"the {len(source):,} images in {source.where} are not those of the first process (other names or "
            "sizes); all machines must see the same"
        )


def held(folder: RunFolder) -> Any:
    """The lock of a run's folder, which the first process holds for all."""
    return folder.lock() if here().first else nullcontext()
