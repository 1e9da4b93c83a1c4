"""The common body of the training commands: start or resume a run in all processes, train, and score.

`pretrain`, `finetune` and `tokenizer` differ in their flags, in how they choose a recipe and in what they print.
A `Command` holds these differences; everything else is written here once.
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
from unmask.console.ranks import SharedRun, check_same, held, prepared, together
from unmask.console.signals import signals
from unmask.data import AnySource
from unmask.errors import RunError, SettingsError
from unmask.formats.model import Weights
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import check_whole
from unmask.runs.run import AnyJob, Run, new_run
from unmask.runs.training import Progress, training
from unmask.runs.weights import check_start, save_start
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
    """The checkpoint to start from; None to start from the beginning."""


class Start(NamedTuple):
    """A job with its initial weights; known once the statistics of the images are known."""

    job: AnyJob
    weights: Weights | None
    """None for random weights from the seed."""


class Common(NamedTuple):
    """The part of a request that is the same for every job."""

    recipe_name: str
    data: AnySource
    images: Images
    out: str | Path | None
    """The folder of the run; runs/RECIPE-DATA if None."""
    seed: int
    running: RunFlags


class Request(NamedTuple):
    """A request for a new run."""

    common: Common
    job: AnyJob
    """Without the description of its initial weights, which depends on the statistics."""
    statistics: Callable[[], ChannelStatistics]
    """Measures or reads mean and deviation of each channel."""
    start: Callable[[ChannelStatistics], Start]
    """Adapts initial weights to the images, and prints what was changed."""
    say_images: Callable[[], None]
    say_plan: Callable[[Run, nn.Module, Cost], None]


@runtime_checkable
class Flags(Protocol):
    """The flags that every training command has."""

    @property
    def seed(self) -> int:
        """Seed of everything that is random."""
        ...

    @property
    def running(self) -> RunFlags:
        """Settings that must not change the result."""
        ...


F = TypeVar("F", bound=Flags)


@dataclass(frozen=True)
class Command(Generic[F]):
    """The differences between the training commands."""

    name: str
    """The name on the command line."""

    request: Callable[[list[str], Peek], Request]
    """Turns a command line into the request for a new run."""

    flags_of: Callable[[Run, str], F]
    """The flags that would give the run in a folder, with every choice filled in."""

    parse: Callable[[list[str], F], F]
    """Parses flags, starting from default ones."""

    words: tuple[str, ...]
    """The fields of positional words; a resumed run reads them from its folder."""

    fixed: tuple[str, ...]
    """The fields that cannot change when a run is resumed."""

    again: str
    """The command that starts another run with a change; {run} stands for the folder."""

    say_done: Callable[[Run, RunFolder, Outcome | None], None]
    """Prints the result and the next commands to run."""

    watched: Callable[[Iterable[Progress]], Iterator[Progress]] = iter
    """Passes reports on and prints warnings and measurements."""


def main(command: Command[F], arguments: list[str]) -> int:
    """Run a training command; returns the exit status."""
    command_line = peek(arguments)
    if "resume" in command_line.flags and not command_line.help:
        return _run(command, partial(resume, command, arguments, command_line)).status
    return _run(command, lambda: begin(command, command.request(arguments, command_line))).status


class Finished(NamedTuple):
    """How a training command ended."""

    status: int
    """The exit status: 0, or 128 plus the number of a signal."""
    folder: RunFolder | None
    """None if nothing was left to do."""


def finished_folder(command: Command[F], request: Request) -> Path:
    """Carry out a request; returns the folder of the run, which holds a checkpoint if a signal stopped it."""
    finished = _run(command, lambda: begin(command, request))
    assert finished.folder is not None
    return finished.folder.root


def _run(command: Command[F], prepare: Callable[[], Ready | None]) -> Finished:
    """Prepare a run in the first process, let the others join, and train in all of them."""
    with together() as group:
        ready = prepared(prepare, _shared, _join, group)
        if ready is None:
            return Finished(0, None)
        return Finished(train(command, ready), ready.folder)


def begin(command: Command[F], request: Request) -> Ready | None:
    """Make a run from a request: folder, hardware, initial weights, costs and plan.

    If torchrun restarts a command after a failure, the run that it had started is resumed.
    """
    common, recipe = request.common, request.job.recipe
    data = as_typed(common.data)
    before = _begun_before(common.out, common.recipe_name, data)
    if before is not None:
        old = Run.read(before, command.name)
        if (old.recipe, old.data, old.seed) == (recipe, common.data, common.seed):
            again = ["--resume", str(before.root)]
            return resume(command, again, peek(again))
    folder = RunFolder(common.out or free_folder(common.recipe_name, data))
    folder.check_free()

    # The images, and the hardware that suits them.
    request.say_images()
    train_images = common.images.train
    check_batch(recipe.batch_size, paired=recipe.pairs)
    hardware = hardware_of(
        common.running.machine,
        in_memory=train_images.in_memory,
        batch_size=recipe.batch_size,
        shard=common.running.shard,
        decode=common.running.decode,
    )
    check_decode(hardware, train_images, recipe.views)

    # The run itself: what decides the result, in one spec.
    statistics = request.statistics()
    job, weights = request.start(statistics)
    run = new_run(
        common.recipe_name,
        job,
        common.data,
        train_images,
        statistics,
        hardware,
        seed=common.seed,
        save_every_minutes=common.running.save_every_minutes,
        max_set_aside=common.running.max_set_aside,
    )

    # Measure a step, so that the micro-batch fits in memory and the plan can be printed.
    module = run.build(weights)
    cost = measured(module, run, train_images)
    fitting = fitting_part(cost, recipe.batch_size, common.running.machine.micro_batch, hardware)
    check_whole(module, fitting.micro_batch, recipe.batch_size // fitting.processes)
    run = replace(run, hardware=fitting)
    request.say_plan(run, module, cost)

    # Only now is anything written.
    folder.create(run)
    first = save_start(folder, run, train_images, module) if weights else None
    return Ready(run, folder, common.images, module, first)


def resume(command: Command[F], arguments: list[str], command_line: Peek) -> Ready | None:
    """The run in the folder that `--resume` names, at its newest checkpoint; None if it is finished."""
    if command_line.flags["resume"] in ("", "True") or command_line.flags["resume"].startswith(
        "--"
    ):
        raise SettingsError("--resume needs the folder of a run: --resume runs/NAME")
    folder = RunFolder(command_line.flags["resume"])
    run = Run.read(folder, command.name)
    old_flags = command.flags_of(run, command_line.flags["resume"])
    flags = command.parse(arguments, old_flags)
    _refuse_changes(command, flags, old_flags, folder)
    check_batch(run.recipe.batch_size, paired=run.recipe.pairs)
    changed = _with_flags(run, flags.running)

    start, damaged = folder.newest()
    for line in damaged:
        console.print(f"skipped a damaged checkpoint: {line}")
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
    """Train until the end or a signal, then score and print what comes next; returns the exit status."""
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
        outcome = None
        if run.job.is_scored:
            outcome = run.job.score(run, _whole(ready), ready.images)
        if outcome is not None:
            folder.write_results(outcome.result)
    if folder.set_aside.exists():
        console.print(f"unusable images were skipped and are listed in {folder.set_aside}")
    if outcome is not None and outcome.unreadable:
        name, reason = outcome.unreadable[0]
        count = len(outcome.unreadable)
        console.print(f"{count} images could not be scored; the first is {name}: {reason}")
    command.say_done(run, folder, outcome)
    return 0


def free_folder(recipe_name: str, data: str) -> str:
    """runs/RECIPE-DATA, with a number if that folder exists."""
    return next(name for name in _folders(recipe_name, data) if not Path(name).exists())


def _folders(recipe_name: str, data: str) -> Iterator[str]:
    name = Path(recipe_name.rpartition(":")[2]).name
    base = f"{Path('runs') / name}-{Path(data).resolve().name}"
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def _begun_before(out: str | Path | None, recipe_name: str, data: str) -> RunFolder | None:
    """The run that this command had started before torchrun restarted it, if there is one."""
    if launched().restarts == 0:
        return None
    taken = takewhile(lambda name: Path(name).exists(), _folders(recipe_name, data))
    root = out or next(iter(deque(taken, maxlen=1)), None)
    folder = RunFolder(root) if root else None
    return folder if folder and folder.spec.exists() else None


def _shared(ready: Ready) -> SharedRun:
    step = None if ready.start is None else ready.start.info.step
    return SharedRun(ready.folder.root, json.dumps(to_json(ready.run)), step)


def _join(shared: SharedRun) -> Ready:
    """Rebuild the run that the first process has prepared, and check that this process sees the same images."""
    folder = RunFolder(shared.root)
    if not folder.spec.exists():
        raise RunError(
            f"{shared.root.absolute()} was created by the first process but is not visible here; choose a folder that "
            "all machines share with --out"
        )
    run = from_json(Run, json.loads(shared.run))
    images = run.job.open(run.data, run.seed)
    check_same(images.train, run.fingerprint)
    start = None if shared.step is None else folder.at(shared.step)
    return Ready(run, folder, images, run.build(), start)


def _whole(ready: Ready) -> nn.Module:
    """The whole module; if it is sharded, read from the newest checkpoint."""
    if not ready.run.hardware.shard:
        return ready.module
    module = ready.run.build()
    module.load_state_dict(ready.folder.newest_whole()[0].read("model"))
    return module


def _with_flags(run: Run, flags: RunFlags) -> Run:
    """The run with the flags of this command, on this machine."""
    return replace(
        run,
        hardware=changed_hardware(flags, run.hardware, run.recipe.batch_size),
        save_every_minutes=flags.save_every_minutes,
        max_set_aside=flags.max_set_aside,
    )


def _refuse_changes(command: Command[F], flags: Any, old_flags: Any, folder: RunFolder) -> None:
    """Check that no field that must stay the same has changed.

    Raises:
        SettingsError: with the name of the flag.
    """
    if any(getattr(flags, word) is not None for word in command.words):
        what = " and ".join(word.upper() for word in command.words)
        raise SettingsError(f"--resume reads the images from the run; leave out {what}")
    names = {"recipe": "a setting of the recipe", "recipe_name": "--recipe"}
    for name in command.fixed:
        new, old = getattr(flags, name), getattr(old_flags, name)
        if new == old:
            continue
        if name == "about_data":  # a group of flags; the message names the one that differs
            name = next(f.name for f in fields(new) if getattr(new, f.name) != getattr(old, f.name))
        flag = names.get(name, f"--{name.replace('_', '-')}")
        raise SettingsError(
            f"--resume continues a run exactly, so {flag} cannot change; start another run with "
            f"`{command.again.format(run=folder.root)}` and that change"
        )


def _check_images(command: Command[F], run: Run, images: Images, folder: RunFolder) -> None:
    """Check that the images are the same as when the run started."""
    if run.job.knows(images) and images.train.fingerprint == run.fingerprint:
        return
    raise RunError(
        f"the images of this run have changed ({run.images:,} then, {len(images.train):,} now, or "
        "other names, sizes or classes),\nso it cannot be resumed exactly; restore them, or start again "
        f"with `{command.again.format(run=folder.root)}`"
    )
