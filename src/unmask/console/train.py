"""The body of every training command: begin a run, or resume one, with all its processes; then train and score.

`pretrain`, `finetune` and `tokenizer` differ in their flags, in how a recipe is chosen and in what they print.
A `Command` holds these differences; everything else is here, once.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from unmask.channels import ChannelStatistics
from unmask.console.arguments import Peek, as_typed, peek
from unmask.console.hardware import (
    RunFlags,
    changed_hardware,
    check_decode,
    fitting_part,
    hardware_of,
    measured,
    say_what_differs,
)
from unmask.console.output import console, shown
from unmask.console.ranks import Told, check_same, held, prepared, together
from unmask.console.signals import signals
from unmask.data import AnySource
from unmask.errors import RunError, SettingsError
from unmask.formats.model import Weights
from unmask.runs.folder import RunFolder
from unmask.runs.init import check_start, save_start
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import check_whole
from unmask.runs.run import AnyJob, Run, new_run
from unmask.runs.training import Progress, training
from unmask.spec import from_json, to_json
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import check_batch, launched
from unmask.training.step_cost import Cost


class Ready(NamedTuple):
    """A run that is ready to train."""

    run: Run
    folder: RunFolder
    images: Images
    module: nn.Module
    start: Checkpoint | None
    """Where it starts; None for the beginning."""


class Start(NamedTuple):
    """What a job starts from, known once the statistics of the images are."""

    job: AnyJob
    weights: Weights | None
    """None for weights drawn from the seed."""


class Wish(NamedTuple):
    """A run that is to begin."""

    recipe_name: str
    job: AnyJob
    """Without the words of its initial weights, which depend on the statistics."""
    data: AnySource
    images: Images
    out: str | None
    """The folder; chosen from recipe and data if None."""
    seed: int
    running: RunFlags
    statistics: Callable[[], ChannelStatistics]
    """Measures, or takes, mean and deviation of each channel."""
    start: Callable[[ChannelStatistics], Start]
    """Fits initial weights to the images, and prints what was done to them."""
    say_images: Callable[[], None]
    say_plan: Callable[[Run, nn.Module, Cost], None]


@runtime_checkable
class Flags(Protocol):
    """The flags that every training command has."""

    @property
    def seed(self) -> int:
        """Seed of all that is drawn."""
        ...

    @property
    def running(self) -> RunFlags:
        """What must not change the result."""
        ...


F = TypeVar("F", bound=Flags)


@dataclass(frozen=True)
class Command(Generic[F]):
    """What training commands differ in."""

    name: str
    """As it is typed."""

    wish: Callable[[list[str], Peek], Wish]
    """The run that a command line asks for."""

    flags_of: Callable[[Run, str], F]
    """The flags that a run in a folder was begun with, every choice made."""

    parse: Callable[[list[str], F], F]
    """Reads flags, starting from others."""

    words: tuple[str, ...]
    """The fields of positional words, which a run that goes on finds by itself."""

    fixed: tuple[str, ...]
    """The fields that cannot change when a run goes on."""

    again: str
    """The command that begins another run with a change, in which {run} is the folder."""

    say_done: Callable[[Run, RunFolder, Outcome | None], None]
    """Says what came out, and what to do next."""

    watched: Callable[[Iterable[Progress]], Iterator[Progress]] = iter
    """Passes reports on, saying what is worth saying."""


def main(command: Command[F], arguments: list[str]) -> int:
    """Run a training command; the exit status."""
    seen = peek(arguments)
    if "resume" in seen.flags and not seen.help:
        return _run(command, partial(resume, command, arguments, seen)).status
    return _run(command, lambda: begin(command, command.wish(arguments, seen))).status


class Finished(NamedTuple):
    """How a training command ended."""

    status: int
    """The exit status: 0, or that of a signal."""
    folder: RunFolder | None
    """None where nothing was left to do."""


def finished_folder(command: Command[F], wish: Wish) -> Path:
    """Do what is wished for; the folder of the run, which holds a checkpoint if a signal stopped it."""
    finished = _run(command, lambda: begin(command, wish))
    assert finished.folder is not None
    return finished.folder.root


def _run(command: Command[F], prepare: Callable[[], Ready | None]) -> Finished:
    """Prepare a run in the first process, join the others to it, and train in all of them."""
    with together() as waiting:
        ready = prepared(prepare, _told, _join, waiting)
        if ready is None:
            return Finished(0, None)
        return Finished(train(command, ready), ready.folder)


def begin(command: Command[F], wish: Wish) -> Ready | None:
    """Make a run from a wish: folder, hardware, initial weights, costs and plan.

    Where torchrun starts a command again after a failure, the run that it began goes on.
    """
    data, recipe = as_typed(wish.data), wish.job.recipe
    before = _begun_before(wish.out, wish.recipe_name, data)
    if before is not None:
        old = Run.read(before, command.name)
        if (old.recipe, old.data, old.seed) == (recipe, wish.data, wish.seed):
            again = ["--resume", str(before.root)]
            return resume(command, again, peek(again))
    folder = RunFolder(wish.out or free_folder(wish.recipe_name, data))
    folder.check_free()

    wish.say_images()
    train_images = wish.images.train
    check_batch(recipe.batch_size, paired=recipe.pairs)
    hardware = hardware_of(
        wish.running.machine,
        in_memory=train_images.in_memory,
        batch_size=recipe.batch_size,
        shard=wish.running.shard,
        decode=wish.running.decode,
    )
    check_decode(hardware, train_images, recipe.views)
    statistics = wish.statistics()
    job, weights = wish.start(statistics)
    run = new_run(
        wish.recipe_name,
        job,
        wish.data,
        train_images,
        statistics,
        hardware,
        seed=wish.seed,
        save_every_minutes=wish.running.save_every_minutes,
        max_set_aside=wish.running.max_set_aside,
    )

    module = run.build(weights)
    cost = measured(module, run, train_images)
    fitting = fitting_part(cost, recipe.batch_size, wish.running.machine.micro_batch, hardware)
    check_whole(module, fitting.micro_batch, recipe.batch_size // fitting.processes)
    run = replace(run, hardware=fitting)
    wish.say_plan(run, module, cost)

    folder.create(run)
    first = save_start(folder, run, train_images, module) if weights else None
    return Ready(run, folder, wish.images, module, first)


def resume(command: Command[F], arguments: list[str], seen: Peek) -> Ready | None:
    """The run in the folder that `--resume` names, at its newest checkpoint; None if it is finished."""
    if seen.flags["resume"] in ("", "True") or seen.flags["resume"].startswith("--"):
        raise SettingsError("--resume needs the folder of a run: --resume runs/NAME")
    folder = RunFolder(seen.flags["resume"])
    run = Run.read(folder, command.name)
    begun = command.flags_of(run, seen.flags["resume"])
    flags = command.parse(arguments, begun)
    _refuse_changes(command, flags, begun, folder)
    check_batch(run.recipe.batch_size, paired=run.recipe.pairs)
    changed = _with_flags(run, flags.running)

    start, damaged = folder.newest()
    for line in damaged:
        console.print(f"passed over a damaged checkpoint: {line}")
    check_start(run, folder, start)
    step = start.info.step if start else 0
    if step >= run.steps and (run.job.is_scored is False or folder.results.exists()):
        console.print(f"{folder.root} is finished: {run.steps:,} of {run.steps:,} steps are done")
        return None

    images = run.job.open(run.data, run.seed)
    _check_images(command, run, images, folder)
    check_decode(changed.hardware, images.train, run.recipe.views)
    say_what_differs(changed.hardware, run.hardware, run.torch_version)
    console.print(f"continuing {folder.root} from step {step:,} of {run.steps:,}")
    module, hardware = run.build(), changed.hardware
    check_whole(module, hardware.micro_batch, run.recipe.batch_size // hardware.processes)
    return Ready(changed, folder, images, module, start)


def train(command: Command[F], ready: Ready) -> int:
    """Train until the end or a signal, then score, and say how to go on; the exit status."""
    run, folder = ready.run, ready.folder
    torch.set_num_threads(run.hardware.threads)
    with held(folder), signals() as stop:
        reports = training(run, folder, ready.images.train, ready.module, stop.event, ready.start)
        for _ in shown(command.watched(reports), run.recipe_name):
            pass
        if stop.event.is_set():
            console.print(
                f"stopped and saved; continue with:\nunmask {command.name} --resume {folder.root}"
            )
            return 128 + stop.signal
        outcome = run.job.score(run, _whole(ready), ready.images)
        if outcome is not None:
            folder.write_results(outcome.result)
    if folder.set_aside.exists():
        console.print(f"images that could not be used are listed in {folder.set_aside}")
    if outcome is not None and outcome.unreadable:
        name, reason = outcome.unreadable[0]
        count = len(outcome.unreadable)
        console.print(f"{count} images could not be scored, the first {name}: {reason}")
    command.say_done(run, folder, outcome)
    return 0


def free_folder(recipe_name: str, data: str) -> str:
    """runs/RECIPE-DATA, numbered if that is taken."""
    return next(name for name in _folders(recipe_name, data) if not Path(name).exists())


def _folders(recipe_name: str, data: str) -> Iterator[str]:
    name = Path(recipe_name.rpartition(":")[2]).name
    base = f"{Path('runs') / name}-{Path(data).resolve().name}"
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def _begun_before(out: str | None, recipe_name: str, data: str) -> RunFolder | None:
    """The run that this very command began before torchrun started it again, if it has."""
    if launched().restarts == 0:
        return None
    taken = takewhile(lambda name: Path(name).exists(), _folders(recipe_name, data))
    root = out or next(iter(deque(taken, maxlen=1)), None)
    folder = RunFolder(root) if root else None
    return folder if folder and folder.spec.exists() else None


def _told(ready: Ready) -> Told:
    step = None if ready.start is None else ready.start.info.step
    return Told(ready.folder.root, json.dumps(to_json(ready.run)), step)


def _join(told: Told) -> Ready:
    """The run that another process has prepared, if this one sees the same images."""
    folder = RunFolder(told.root)
    if not folder.spec.exists():
        raise RunError(
            f"{told.root.absolute()} is not there, and the first process has made it; the folder of a "
            "run must lie where all machines see it (--out)"
        )
    run = from_json(Run, json.loads(told.run))
    images = run.job.open(run.data, run.seed)
    check_same(images.train, run.fingerprint)
    start = None if told.step is None else folder.at(told.step)
    return Ready(run, folder, images, run.build(), start)


def _whole(ready: Ready) -> nn.Module:
    """The module in one piece: read from the newest checkpoint, if processes share it."""
    newest, _ = ready.folder.newest()
    if not ready.run.hardware.shard or newest is None:
        return ready.module
    module = ready.run.build()
    module.load_state_dict(newest.read("model"))
    return module


def _with_flags(run: Run, flags: RunFlags) -> Run:
    """The run on this machine, with what may change as the flags say."""
    return replace(
        run,
        hardware=changed_hardware(flags, run.hardware, run.recipe.batch_size),
        save_every_minutes=flags.save_every_minutes,
        max_set_aside=flags.max_set_aside,
    )


def _refuse_changes(command: Command[F], flags: Any, begun: Any, folder: RunFolder) -> None:
    """Refuse other values than the run has in fields that cannot change.

    Raises:
        SettingsError: naming the flag.
    """
    if any(getattr(flags, word) is not None for word in command.words):
        what = " and ".join(word.upper() for word in command.words)
        raise SettingsError(f"--resume finds the images by itself: leave out {what}")
    names = {"recipe": "a setting of the recipe", "recipe_name": "--recipe"}
    for name in command.fixed:
        new, old = getattr(flags, name), getattr(begun, name)
        if new == old:
            continue
        if name == "about_data":  # a group of flags: name the one that differs
            name = next(f.name for f in fields(new) if getattr(new, f.name) != getattr(old, f.name))
        flag = names.get(name, f"--{name.replace('_', '-')}")
        raise SettingsError(
            f"--resume continues a run exactly, so {flag} cannot change; begin another with "
            f"`{command.again.format(run=folder.root)}` and that change"
        )


def _check_images(command: Command[F], run: Run, images: Images, folder: RunFolder) -> None:
    """Refuse to go on with other images than the run began with."""
    if run.job.knows(images) and images.train.fingerprint == run.fingerprint:
        return
    raise RunError(
        f"the images of this run have changed ({run.images:,} then, {len(images.train):,} now, or "
        "other names, sizes or classes), so it cannot go on exactly; put them back, or start again "
        f"with `{command.again.format(run=folder.root)}`"
    )
