"""The common body of the training commands: start or resume a run in all processes, train, and score.

`pretrain`, `finetune` and `tokenizer` differ in their flags, in how they choose a recipe and in what they print.
A `Command` holds these differences; everything else is written here once.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from unmask.clock import entered
from unmask.console.arguments import Peek, peek
from unmask.console.command_line import split
from unmask.console.from_python import refuse_others
from unmask.console.hardware import (
    RunFlags,
    changed_hardware,
    check_decode,
    fitted,
    hardware_of,
    say_what_differs,
)
from unmask.console.new_folder import begun_before, folder_names
from unmask.console.observers import Observers, observed, observers_of
from unmask.console.output import console, shown
from unmask.console.plan import say_shared_memory, warn_of_batch
from unmask.console.processes import locked, prepared, signals, together
from unmask.console.resumed_images import images_again, place_again
from unmask.console.training_command import Command, Request
from unmask.console.typed import as_typed, resume_words
from unmask.console.unchanged import refuse_changes
from unmask.data import AnySource
from unmask.errors import RunError, SettingsError, typed
from unmask.files import write_text
from unmask.runs.course import Course
from unmask.runs.folder import RunFolder
from unmask.runs.images_of_run import as_begun, keep_names, keep_place
from unmask.runs.job import Images
from unmask.runs.plan import check_parts, seconds_of_step
from unmask.runs.run import Run, new_run
from unmask.runs.training import training
from unmask.runs.weights import check_start, save_start
from unmask.spec import from_json, to_json
from unmask.training.checkpoint import Checkpoint, fill
from unmask.training.distributed import check_batch, firsts, here
from unmask.training.logbook import read_log

T = TypeVar("T")


class Ready(NamedTuple):
    """A run that is ready to train."""

    run: Run
    folder: RunFolder
    data: AnySource
    """The images, at the place where they are now."""
    images: Images
    module: nn.Module
    start: Checkpoint | None
    """The checkpoint to start from; None to start from the beginning."""
    observers: Observers = Observers()
    """The report and the trackers, in the first process."""


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


def main(command: Command, arguments: list[str]) -> int:
    """Run a training command; returns the exit status."""
    command_line = peek(arguments)
    if "resume" in command_line.flags and not command_line.help:
        status, _ = _run(command, lambda: resume(command, arguments, command_line))
    else:
        request = command.request
        words = typed(command.name, *arguments)
        status, _ = _run(command, lambda: begin(command, request(arguments, command_line), words))
    return status


def in_turn(
    command: Command, prepares: Iterable[Callable[[], Ready | None]]
) -> Iterator[tuple[int, RunFolder | None]]:
    """Carry out several runs in the same processes, one after another: the exit status and the folder of each.

    A run that is finished already prepares nothing, and has no folder.
    """
    with together() as group:
        for prepare in prepares:
            ready = prepared(prepare, _shared, _join, group)
            if ready is None:
                yield 0, None
            else:
                yield firsts(train(command, ready), group), ready.folder


def finished_folder(command: Command, request: Request) -> Path:
    """Carry out a request; returns the folder of the run, which holds a checkpoint if a signal stopped it."""
    _, folder = _run(command, lambda: begin(command, request))
    assert folder is not None
    return folder.root


def resumed_folder(
    command: Command, root: str | Path, data: AnySource, running: RunFlags | None
) -> Path:
    """Continue the run in a folder on its images, with other hardware if `running` says so; returns the folder."""
    of_run = Run.read(RunFolder(root), command.name).data
    refuse_others(root, of_run, data)
    words = ["--resume", str(root), *([] if data == of_run else [as_typed(data)])]
    _run(command, lambda: resume(command, words, peek(words), running=running))
    return Path(root)


def _run(command: Command, prepare: Callable[[], Ready | None]) -> tuple[int, RunFolder | None]:
    """Prepare a run in the first process, let the others join, and train in all of them."""
    (carried_out,) = in_turn(command, [prepare])
    return carried_out


def begin(command: Command, request: Request, words: str = "") -> Ready | None:
    """Make a run from a request: folder, hardware, initial weights, costs and plan.

    If torchrun restarts a command after a failure, the run that it had started is resumed. `words` is the command line.
    """
    common, recipe = request.common, request.job.recipe
    asked = observers_of(common.running)
    data = as_typed(common.data)
    before = begun_before(common.out, common.recipe_name, data)
    if before is not None:
        old = Run.read(before, command.name)
        if (old.recipe, old.data, old.seed) == (recipe, common.data, common.seed):
            again = ["--resume", str(before.root)]
            return resume(command, again, peek(again), asked)
    names = folder_names(common.recipe_name, data)
    folder = RunFolder(common.out or next(name for name in names if not Path(name).exists()))
    folder.check_free()

    # The images, and the hardware that suits them.
    request.say_images()
    train_images = common.images.train
    warn_of_batch(recipe, len(train_images))
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
    images = common.images.read_as(statistics)
    train_images = images.train
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
        minutes=request.minutes,
        learned_before=request.learned_before,
    )

    # Measure a step, so that the micro-batch fits in memory and the plan can be printed.
    module = run.build(weights)
    cost, fitting = fitted(module, run, train_images, common.running.machine.micro_batch)
    run = replace(run, hardware=fitting)
    if run.minutes is not None:
        run = request.in_time(run, seconds_of_step(run, train_images, cost))
    request.say_plan(run, module, cost)
    say_shared_memory(run, train_images)

    # Only now is anything written.
    folder.create(run)
    first = save_start(folder, run, train_images, module) if weights else None
    keep_names(folder, train_images)
    write_text(folder.command_line, f"{words}\n")
    return Ready(run, folder, run.data, images, module, first, asked)


def resume(
    command: Command,
    arguments: list[str],
    command_line: Peek,
    asked: Observers | None = None,
    running: RunFlags | None = None,
) -> Ready | None:
    """The run in the folder that `--resume` names, at its newest checkpoint; None if it is finished.

    `running` replaces the flags that must not change the result.
    """
    root = command_line.flags["resume"]
    if root in ("", "True") or root.startswith("--"):
        raise SettingsError("--resume needs the folder of a run: --resume runs/NAME")
    folder = RunFolder(root)
    run = Run.read(folder, command.name)
    old_flags = command.flags_of(run, root)
    flags = command.parse(arguments, old_flags)
    if running is not None:
        flags = replace(flags, running=running)
    asked = asked or observers_of(flags.running)
    refuse_changes(command, flags, old_flags, folder, split(arguments, command.name))
    data = place_again(command_line, run, folder)
    check_batch(run.recipe.batch_size, paired=run.recipe.pairs)
    changed = replace(
        run,
        hardware=changed_hardware(flags.running, run.hardware, run.recipe.batch_size),
        save_every_minutes=flags.running.save_every_minutes,
        max_set_aside=flags.running.max_set_aside,
    )

    start, damaged = folder.newest()
    for line in damaged:
        console.warn(f"skipped a damaged checkpoint: {line}")
    check_start(run, folder, start)
    step = start.info.step if start else 0
    steps = Course(run, read_log(folder.log), step, entered()).steps
    if step >= steps and (not run.job.score_types or folder.results.exists()):
        console.print(f"{folder.root} is finished: {step:,} of {steps:,} steps are done")
        if longer := command.longer(run, folder.root, "N"):
            console.print(f"to train it longer, {longer}")
        return None

    folder.check_writable()
    images = images_again(run, folder, data, command.again)
    say_shared_memory(changed, images.train)
    check_decode(changed.hardware, images.train, run.recipe.views)
    say_what_differs(changed.hardware, run.hardware, run.torch_version)
    console.print(f"continuing {folder.root} from step {step:,} of {steps:,}")
    module, hardware = run.build(), changed.hardware
    check_parts(module, hardware, run.recipe.batch_size)
    return Ready(changed, folder, data, images, module, start, asked)


def train(command: Command, ready: Ready) -> int:
    """Train until the end or a signal, then score and print what comes next; returns the exit status."""
    run, folder = ready.run, ready.folder
    torch.set_num_threads(run.hardware.threads)
    source, module, start = ready.images.train, ready.module, ready.start
    observing = observed(ready.observers, run, folder, source, module, start)
    with locked(folder), signals() as stop, observing as observe:
        if here().first:
            keep_place(run, folder, ready.data)
        reports = training(run, folder, source, module, stop.event, start)
        for _ in shown(command.watched(observe(reports)), run.recipe_name):
            pass
        if stop.event.is_set():
            console.result(
                f"stopped and saved; continue with:\n{resume_words(command.name, folder.root, run.data)}"
            )
            return 128 + stop.signal
        outcome = None
        if run.job.score_types:
            outcome = run.job.score(run, _whole(ready), ready.images)
        if outcome is not None:
            command.draw(folder, outcome)
            folder.write_results(outcome.result)
    if folder.set_aside.exists():
        console.warn(f"unusable images were skipped and are listed in {folder.set_aside}")
    if outcome is not None and outcome.unreadable:
        name, reason = outcome.unreadable[0]
        count = len(outcome.unreadable)
        console.warn(f"{count} images could not be scored; the first is {name}: {reason}")
    command.say_done(replace(run, data=ready.data), folder, ready.images, outcome)
    return 128 + stop.signal if stop.event.is_set() else 0  # by a signal after the last step


def _shared(ready: Ready) -> SharedRun:
    step = None if ready.start is None else ready.start.info.step
    run, moved = ready.run, replace(ready.run, data=ready.data)
    return SharedRun(ready.folder.root, json.dumps(to_json(run)), json.dumps(to_json(moved)), step)


def _join(shared: SharedRun) -> Ready:
    """Rebuild the run that the first process has prepared."""
    folder = RunFolder(shared.root)
    if not folder.spec.exists():
        raise RunError(
            f"{shared.root.absolute()} was created by the first process but is not visible here; choose a folder that "
            "all machines share with --out"
        )
    run = from_json(Run, json.loads(shared.run))
    data = from_json(Run, json.loads(shared.data)).data
    images = as_begun(run, data)
    if images is None:
        raise RunError(
            f"the images in {as_typed(data)} differ from those of the first process (other names or sizes); all "
            "machines must see the same images"
        )
    start = None if shared.step is None else folder.at(shared.step)
    return Ready(run, folder, data, images, run.build(), start)


def _whole(ready: Ready) -> nn.Module:
    """The whole module; if it is sharded, read from the newest checkpoint."""
    if not ready.run.hardware.shard:
        return ready.module
    module = ready.run.build()
    checkpoint = ready.folder.newest_whole()[0]
    fill(module, checkpoint.read("model"), checkpoint.folder)
    return module
