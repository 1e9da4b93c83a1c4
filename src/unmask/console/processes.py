"""The processes of a command: signals that stop it, and the ranks that torchrun starts.

Under torchrun the first process prepares and prints, and all of them train.
"""

import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple, NoReturn, TypeVar

from torch.distributed import ProcessGroup

from unmask.console.bars import progress_on
from unmask.console.screen import console, notes
from unmask.errors import RunError, UnmaskError
from unmask.files import clear_unfinished
from unmask.runs.folder import RunFolder
from unmask.training.distributed import everyones, firsts, here, joined, launched, lost, slurm_tasks

R = TypeVar("R")
Group = ProcessGroup | None
_FAILED = "failed"
_LOST = (
    "another process of this run has ended or does not answer, so the run stops; its error is above or "
    "in its own output.\nThe last checkpoint is complete: continue with --resume"
)


class Stop:
    """Whether to stop, and because of which signal."""

    def __init__(self) -> None:
        self.event = Event()
        self.signal: int = signal.SIGTERM  # where another process got the signal


@contextmanager
def signals(unit: str = "step") -> Generator[Stop]:
    """On Ctrl-C or SIGTERM finish the current step first, or other unit of work; a second Ctrl-C stops at once."""
    stop = Stop()

    def handle(number: int, _: object) -> None:
        if stop.event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.event.set()
        stop.signal = number
        # in a thread, because the signal may have interrupted a print, which cannot be entered again
        again = "; Ctrl-C again to stop now" if number == signal.SIGINT else ""
        Thread(target=notes.result, args=[f"finishing this {unit}{again}"], daemon=True).start()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class SharedRun(NamedTuple):
    """What the first process sends the others about the run that it has prepared."""

    root: Path
    """The folder of the run."""
    run: str
    """The run as JSON."""
    data: str
    """The run as JSON, with the place where its images are now."""
    step: int | None
    """The step of the checkpoint to start from; None to start from the beginning."""


@contextmanager
def together() -> Generator[Group]:
    """Join the other processes; only the first prints, and an error names its process.

    Yields the process group in which the others wait for `prepared`.
    """
    processes = launched()
    console.silent = notes.silent = not processes.first
    if (tasks := slurm_tasks()) > 1 and processes.count == 1:
        notes.note(
            f"Slurm started this job with {tasks} tasks, but this process trains alone; to train with several, "
            "start them with torchrun:\nsrun --ntasks-per-node=1 torchrun ... -m unmask (docs/many-machines.md)"
        )
    try:
        with joined() as group, progress_on(console):
            yield group
    except UnmaskError as error:
        if processes.first:
            raise
        raise type(error)(f"{processes.name}: {error}") from None
    except RuntimeError as error:
        if not lost(error):
            raise
        if not processes.first:
            # the first process may be the one that is gone, so one process of each machine speaks too
            if processes.local_rank == 0 or processes.rank == 1:
                print(f"unmask: {processes.name}: {_LOST}", file=sys.stderr, flush=True)
            _leave()
        raise RunError(_LOST) from None


def prepared(
    prepare: Callable[[], R | None],
    share: Callable[[R], SharedRun],
    join: Callable[[SharedRun], R],
    group: Group,
) -> R | None:
    """A run that the first process prepares and the others rebuild; None if nothing is left to do.

    Raises:
        RunError: if another process cannot build the same run, for example because it sees other images.
    """
    if group is None:
        return prepare()
    ready, message, problem = None, None, ""
    if here().first:
        try:
            ready = prepare()
        except BaseException:
            firsts(_FAILED, group)
            raise
        message = None if ready is None else share(ready)
    message = firsts(message, group)
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
    """End this process silently; the first process prints the error."""
    # torchrun kills all processes as soon as one ends, and the first must print before
    time.sleep(1)
    raise SystemExit(1)


@contextmanager
def locked(folder: RunFolder) -> Generator[None]:
    """The lock of a run's folder; the first process holds it for all."""
    if not here().first:
        yield
        return
    with folder.lock() as note:
        clear_unfinished(folder.root)
        if note:
            notes.note(note)
        yield
