"""A training command that torchrun has started several times: one process prepares and speaks, all train."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from torch.distributed import ProcessGroup

from unmask.console.fitting import last_folder
from unmask.console.output import console, notes
from unmask.contracts import ImageSource
from unmask.errors import RunError, UnmaskError
from unmask.runs.folder import RunFolder
from unmask.spec import to_json
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import everyones, firsts, here, joined, launched, lost

R = TypeVar("R")
D = TypeVar("D")
M = TypeVar("M")


@dataclass(frozen=True)
class Job(Generic[R, D, M]):
    """A run that is ready to train."""

    run: R
    """What runs."""
    folder: RunFolder
    """Where it is kept."""
    data: D
    """Its images, opened."""
    module: M
    """What is trained."""
    start: Checkpoint | None
    """Where it starts; None for the beginning."""


Waiting = ProcessGroup | None
_FAILED = "failed"
Joining = Callable[[RunFolder, Any, Checkpoint | None], Job[R, D, M]]
"""Makes the same job from the folder of a run, the run as JSON, and where it starts."""


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
    prepare: Callable[[], Job[R, D, M] | None], join: Joining[R, D, M], waiting: Waiting
) -> Job[R, D, M] | None:
    """A job, or None if nothing is left to do: prepared by the first process, made again by the others.

    Raises:
        RunError: if another process cannot make the same, such as from other images.
    """
    if waiting is None:
        return prepare()
    job, told, problem = None, None, ""
    if here().first:
        try:
            job = prepare()
        except BaseException:
            firsts(_FAILED, waiting)
            raise
        told = None if job is None else _told(job)
    told = firsts(told, waiting)
    if told == _FAILED:
        _leave()
    if told is None:
        return None
    if not here().first:
        try:
            job = _joined(told, join)
        except UnmaskError as error:
            problem = f"{here().name}: {error}"
    problems = [problem for problem in everyones(problem) if problem]
    if problems and not here().first:
        _leave()
    if problems:
        raise RunError(problems[0])
    return job


def _leave() -> NoReturn:
    """End without a word: the first process says what is wrong, and is given the time to, for torchrun ends
    all others as soon as one has ended.
    """
    time.sleep(1)
    raise SystemExit(1)


def _told(job: Job[R, D, M]) -> tuple[Path, str, int | None]:
    step = None if job.start is None else job.start.info.step
    return job.folder.root, json.dumps(to_json(job.run)), step


def _joined(told: tuple[Path, str, int | None], join: Joining[R, D, M]) -> Job[R, D, M]:
    root, run, step = told
    folder = RunFolder(root)
    if not folder.spec.exists():
        raise RunError(
            f"{root.absolute()} is not there, and the first process has made it; the folder of a run must "
            "lie where all machines see it (--out)"
        )
    return join(folder, json.loads(run), None if step is None else folder.at(step))


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


def begun_before(out: str | None, recipe_name: str, data: str) -> RunFolder | None:
    """The run that this very command began before torchrun started it anew, if it has."""
    if launched().restarts == 0:
        return None
    root = out or last_folder(recipe_name, data)
    folder = RunFolder(root) if root else None
    return folder if folder and folder.spec.exists() else None
