"""Kills a run with SIGKILL again and again, and then lets it end: `python killing.py RUN REPORT.json`.

torch is imported once; every attempt is a fork that goes on with the run from its folder. Some are
killed at a random moment; others kill themselves at a chosen place inside a save.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from runs import tiny

from unmask.errors import RunError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training import checkpoint

RANDOM_KILLS = 16
WORKERS = (0, 1, 2)
LONGEST_STEP = 0.08
"""Seconds: a kill falls between a report and this much later."""


def die() -> None:
    """End as if the machine had been switched off."""
    os.kill(os.getpid(), signal.SIGKILL)


def before_file(folder: RunFolder) -> None:
    """Before the second file of a checkpoint."""
    _at_call(2, checkpoint, "save_tensors", lambda save, *args: die())


def within_file(folder: RunFolder) -> None:
    """After half of the second file."""

    def half(save: Callable[..., None], tensors: Any, path: Path, metadata: Any) -> None:
        save(tensors, path, metadata)
        os.truncate(path, path.stat().st_size // 2)
        die()

    _at_call(2, checkpoint, "save_tensors", half)


def before_sync(folder: RunFolder) -> None:
    """Before a file has reached the disk."""
    _at_call(3, checkpoint, "sync", lambda sync, path: die())


def within_info(folder: RunFolder) -> None:
    """After half of info.json."""

    def half(write_whole: Callable[..., None], path: Path, write: Callable[[Path], None]) -> None:
        def write_half(temporary: Path) -> None:
            write(temporary)
            os.truncate(temporary, temporary.stat().st_size // 2)
            die()

        write_whole(path, write_half)

    _at_call(1, checkpoint, "write_whole", half)


def before_rename(folder: RunFolder) -> None:
    """When everything is written and only the name is missing."""
    _at_call(1, Path, "rename", lambda rename, *args: die())


def after_rename(folder: RunFolder) -> None:
    """When the new checkpoint has its name, and old ones still lie beside it."""

    def rename_and_die(rename: Callable[..., None], *args: Any) -> None:
        rename(*args)
        die()

    _at_call(1, Path, "rename", rename_and_die)


def within_removal(folder: RunFolder) -> None:
    """While the oldest checkpoint is being removed."""

    def part(remove: Callable[..., None], path: Path, **options: Any) -> None:
        if Path(path).name.startswith("step-") and Path(path).exists():
            (Path(path) / "info.json").unlink()
            die()
        remove(path, **options)

    shutil.rmtree = _wrapped(shutil.rmtree, part)  # type: ignore[assignment]


PLACES = (
    before_file,
    within_file,
    before_sync,
    within_info,
    before_rename,
    after_rename,
    within_removal,
)


def _at_call(number: int, owner: Any, name: str, act: Callable[..., Any]) -> None:
    """Let the given call of a function be `act(function, *arguments)` instead."""
    function, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def counted(*args: Any) -> Any:
        return act(function, *args) if next(calls) == number else function(*args)

    setattr(owner, name, counted)


def _wrapped(function: Callable[..., Any], act: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: act(function, *args, **options)


@contextlib.contextmanager
def forked(work: Callable[[int], None]) -> Iterator[tuple[int, int]]:
    """Run `work(pipe)` in a child; give its number and the other end of the pipe; at the end, kill it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            os.close(reading)
            work(writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    try:
        yield child, reading
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # loading processes that it left behind
        assert os.WIFSIGNALED(status), f"ended by itself with {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL


def trained(folder: RunFolder, workers: int, minutes: float) -> Callable[[int], None]:
    """Work for a child: train, and send a byte for every step."""

    def work(pipe: int) -> None:
        for _ in tiny.go_on(folder, workers=workers, save_every_minutes=minutes):
            os.write(pipe, b".")

    return work


def kill_at_random(folder: RunFolder, chance: random.Random, workers: int) -> None:
    """Kill a child some time after its start, or after its first few steps."""
    steps = chance.randrange(4)
    minutes = chance.choice([0, 0, 0.001])
    with forked(trained(folder, workers, minutes)) as (child, pipe):
        for _ in range(steps):
            assert os.read(pipe, 1), "the child ended early"
        time.sleep(chance.uniform(0, LONGEST_STEP * (1 if steps else 3)))
        os.kill(child, signal.SIGKILL)


def kill_inside_save(folder: RunFolder, place: Callable[[RunFolder], None], workers: int) -> None:
    """Let a child kill itself at a place inside a save."""

    def work(pipe: int) -> None:
        place(folder)
        trained(folder, workers, 0)(pipe)

    with forked(work):
        pass  # at the end its death is waited for


def held_lock(folder: RunFolder) -> dict[str, Any]:
    """What a second process is told while another holds the folder, and whether it is free after a kill."""

    def hold(pipe: int) -> None:
        with folder.lock():
            os.write(pipe, b".")
            time.sleep(60)

    message = ""
    with forked(hold) as (child, pipe):
        os.read(pipe, 1)
        try:
            with folder.lock():
                pass
        except RunError as error:
            message = str(error)
        os.kill(child, signal.SIGKILL)
    with folder.lock():
        return {"holder": child, "refusal": message}


def main(run: Path, report: Path) -> None:
    """Kill, go on, and write down what was done."""
    torch.set_num_threads(1)
    folder, chance = RunFolder(run), random.Random(4)
    Run.read(folder, "pretrain").data.open("train")[
        0
    ]  # what decoding imports is then imported for all forks
    lock = held_lock(folder)
    attempts: list[Callable[[int], None]] = [
        lambda workers: kill_at_random(folder, chance, workers) for _ in range(RANDOM_KILLS)
    ]
    attempts += [
        lambda workers, place=place: kill_inside_save(folder, place, workers) for place in PLACES
    ]
    chance.shuffle(attempts)
    within_save, steps = len(PLACES), []
    for number, attempt in enumerate(attempts):
        attempt(WORKERS[number % len(WORKERS)])
        found, _ = folder.newest()
        steps.append(found.info.step if found else 0)
    tiny.finish(folder)
    report.write_text(
        json.dumps({"kills": len(attempts), "inside_save": within_save, "steps": steps, **lock})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
