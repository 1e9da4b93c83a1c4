"""The processes of a command: signals that stop it, and the ranks that torchrun starts.

Under torchrun the first process prepares and prints, and all of them train.
"""

import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Event, Thread
from typing import NoReturn, TypeVar

from torch.distributed import ProcessGroup

from unmask.console.bars import progress_on
from unmask.console.screen import console, notes
from unmask.errors import RunError, UnmaskError
from unmask.files import clear_unfinished
from unmask.runs.folder import RunFolder
from unmask.training.distributed import everyones, firsts, here, joined, launched, lost, slurm_tasks

R = TypeVar("R")
M = TypeVar("M")
Group = ProcessGroup | None
_FAILED = "failed"
_BETWEEN = (
    0.3  # seconds between the errors of processes, longer than torchrun takes to end the others
)
_LOST = "another process of this {what} has ended or does not answer, so it stops; its error is above or in its own output.\n"
_RESUME = "The last checkpoint is complete: continue with --resume"


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


@contextmanager
def together(what: str = "run", again: str = _RESUME) -> Generator[Group]:
    """Join the other processes; only the first prints, and an error names its process.

    If a process is lost, the others say so, with the name of `what` they do and how to do it `again`. Yields the process
    group in which processes wait for hours, as for `prepared`.
    """
    gone = _LOST.format(what=what) + again
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
        # the first process may have the same error, which it prints; else that of one process is enough
        time.sleep(_BETWEEN * processes.local_rank)
        _leave(f"{processes.name}: {error}")
    except RuntimeError as error:
        if not lost(error):
            raise
        if not processes.first:
            # the first process may be the one that is gone, so one process of each machine speaks too
            speaks = processes.local_rank == 0 or processes.rank == 1
            _leave(f"{processes.name}: {gone}" if speaks else "")
        raise RunError(gone) from None


def prepared(
    prepare: Callable[[], R | None],
    share: Callable[[R], M],
    join: Callable[[M], R],
    group: Group,
) -> R | None:
    """What the first process prepares and the others rebuild; None if nothing is left to do.

    Args:
        prepare: what the first process does.
        share: what the others need of it, as a plain Python object.
        join: rebuilds it from that in another process.
        group: the processes, from `together`.

    Raises:
        RunError: if another process cannot rebuild it, for example because it sees other images.
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
    problems = [problem for problem in everyones(problem, group) if problem]
    if problems and not here().first:
        _leave()
    if problems:
        raise RunError(problems[0])
    return ready


def _leave(words: str = "") -> NoReturn:
    """End this process, with an error or silently, if the first has not ended the run until then."""
    # torchrun kills all processes as soon as one ends, and the first must print before
    time.sleep(1)
    if words:
        print(f"unmask: {words}", file=sys.stderr, flush=True)
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
