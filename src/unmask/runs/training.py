"""The training loop of every job, from the first image to the last checkpoint. Read it from top to bottom."""

import sys
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import NamedTuple

import torch
from torch import nn

from unmask.clock import entered
from unmask.contracts import ImageSource, Reports
from unmask.data.loader import Failures, Feed, SetAside, batches, example_of
from unmask.data.order import rows_of
from unmask.runs.course import Course
from unmask.runs.feeding import feed_for
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.saving import Saver
from unmask.targets.tokenizer import current_names
from unmask.training.checkpoint import COMPANIONS, LOSS_SCALE, Checkpoint, fill, restore_optimizer
from unmask.training.distributed import agreed, everyones, here, spread
from unmask.training.hardware import find_device, wait_for
from unmask.training.kernels import prepared
from unmask.training.logbook import Logbook, read_log
from unmask.training.loop import train
from unmask.training.loss_scale import LossScale, loss_scale_for
from unmask.training.step_cost import Meter, first_ceiling, flops_per_image
from unmask.traits import Recomputing

# between writes of the log; reading losses waits for the GPU, so not at every step
_WRITE_SECONDS = 1.0


class Progress(NamedTuple):
    """The state of a run after a step."""

    step: int
    steps: int
    lines: list[dict[str, float]]
    """Log lines written since the last report; usually none."""
    saved: bool
    """Whether a checkpoint of this step is written or being written."""


def training(
    run: Run,
    folder: RunFolder,
    source: ImageSource,
    module: nn.Module,
    stop: Event,
    start: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Train a run's module on its images, from a checkpoint if given, until the end or until `stop` is set.

    With several processes, each calls this and gets its rows of every batch. All stop and save at the same step.

    Raises:
        DataError: when too many images are unusable.
        DivergedError: when the loss is no longer finite; nothing is saved after it.
        ResourceError: when the disk is full.
    """
    # Before the first step: fit the target to the training images, where the objective needs that.
    if start is None:
        run.job.fit(run, source, module)
    watch = run.job.watch(run, source, module)

    # Restore module, optimizer and log from the checkpoint, or start new ones.
    device = find_device(run.hardware.device)
    torch.set_num_threads(run.hardware.threads)
    feed = feed_for(source, run.recipe.views, run.recipe.size_at, run.seed, run.hardware)
    if run.hardware.recompute and isinstance(module, Recomputing):
        module.saves_memory = True
    equipped = _equip(run, module, feed, device, start)
    first_step = start.info.step if start else 0
    logbook = Logbook(folder.log, first_step, equipped.meter)
    past = everyones(read_log(folder.log) if here().first else [])[0]
    course = Course(run, past, first_step, entered())
    saver = Saver(run, folder, module, equipped.optimizer, equipped.loss_scale)
    set_aside = _SetAsideByAll(run, folder, source)

    # The steps: `train` yields a report after each.
    reports = _steps(run, course, equipped, feed, device, first_step, set_aside)
    stepped = written = saved = time.perf_counter()
    try:
        for report in reports:
            # Ten times a run: check the embedding for collapse. The GPU finishes the step first, so that the
            # time of the check does not count as time of the step.
            looks = watch is not None and watch.due(report.step)
            if looks:
                wait_for(device)
            now = time.perf_counter()
            logbook.add(report, now - stepped)
            if watch is not None and looks:
                logbook.note(report.step, watch.look())
            if course.due(report.step):
                logbook.note(report.step, course.decide(report.step))
            is_last = report.step == course.steps
            stepped = time.perf_counter()

            # All processes agree on what is due: stop, save, write the log, list unusable images.
            stopping, save, write, unusable, writing = agreed(
                stop.is_set(),
                is_last or now - saved >= 60 * run.save_every_minutes,
                now - written >= _WRITE_SECONDS,
                bool(set_aside.waiting),
                saver.busy,
            )
            save = save or stopping
            if unusable:
                set_aside.gather()
            if not writing:
                saver.settle()

            # Write the log before saving: it detects a loss that is not finite, which must not reach a checkpoint.
            lines: list[dict[str, float]] = []
            if save or write:
                lines = logbook.write()
                stepped = written = time.perf_counter()
            if save:
                saver.save(report.step, last=stopping or is_last)
                saved = stepped = time.perf_counter()

            yield Progress(report.step, course.steps, lines, save)
            stepped = (
                time.perf_counter()
            )  # what the caller does, such as a report, is no part of a step
            if stopping:
                stop.set()  # where another process got the signal
                return
    finally:
        saver.leave()


class _Equipped(NamedTuple):
    """A module ready to train."""

    module: nn.Module
    """The module as the loop calls it, with gradients averaged over all processes."""
    optimizer: torch.optim.Optimizer
    loss_scale: LossScale | None
    """The scale of the loss, which the steps change; None in precisions that need none."""
    around: Callable[[Reports], Reports]
    """Wraps the steps: selects the attention kernels on a GPU."""
    meter: Meter


def _equip(
    run: Run, module: nn.Module, feed: Feed, device: torch.device, start: Checkpoint | None
) -> _Equipped:
    """Load weights, count FLOPs, compile, distribute over processes and build the optimizer, in this order.

    Weights come first, because everything else reads the module. FLOPs are counted before compiling, which hides
    them from the counter. The module is distributed before the optimizer is built, because with `--shard` the
    optimizer must hold the process's own parts of the parameters.
    """
    recipe, hardware = run.recipe, run.hardware
    if start:
        fill(module, start.read("model") | start.read_if_there(COMPANIONS), start.folder)
    whole_on = torch.device("cpu") if hardware.shard else device
    module.to(whole_on).train()
    examples = {size: example_of(feed, size, whole_on) for size in recipe.every_size()}
    flops = {
        size: flops_per_image(module, example, whole_on, hardware.precision)
        for size, example in examples.items()
    }
    around = prepared(
        module,
        examples.values(),
        whole_on,
        hardware.precision,
        micro_batch=hardware.micro_batch,
        steps=run.steps,
    )
    del examples  # they take memory on the device
    ceiling = here().count * first_ceiling(device, hardware.precision, hardware.threads)
    spread_out = spread(module, device, hardware.shard)
    optimizer = recipe.optimizer.build(module)
    if start:
        # for tokenizers of an older version, whose parameters had other names
        state = current_names(start.read("training/optimizer"))
        restore_optimizer(optimizer, module, state)
    saved_scale = start.read_if_there(LOSS_SCALE) if start else None
    loss_scale = loss_scale_for(hardware.precision, saved_scale)
    return _Equipped(spread_out, optimizer, loss_scale, around, Meter(device, flops, ceiling))


def _steps(
    run: Run,
    course: Course,
    equipped: _Equipped,
    feed: Feed,
    device: torch.device,
    first_step: int,
    set_aside: "_SetAsideByAll",
) -> Reports:
    """The steps of the run on this process's rows of the batches; yields a report after each."""
    recipe, hardware, processes = run.recipe, run.hardware, here()
    stream = batches(
        feed,
        batch_size=recipe.batch_size,
        first_step=first_step,
        steps=run.steps if run.minutes is None else sys.maxsize,
        workers=hardware.workers,
        device=device,
        set_aside=set_aside,
        rows=rows_of(processes.rank, processes.count, recipe.batch_size),
    )
    change = run.job.change(run)  # mixup, noise
    if change is not None:
        stream = (change(batch, step) for step, batch in enumerate(stream, start=first_step))
    reports = train(
        equipped.module,
        stream,
        equipped.optimizer,
        course,
        first_step=first_step,
        seed=run.seed,
        device=device,
        precision=hardware.precision,
        micro_batch=hardware.micro_batch,
        loss_scale=equipped.loss_scale,
    )
    return equipped.around(reports)


class _SetAsideByAll:
    """The list of unusable images of all processes, which the first one keeps; it starts with those the scan refused."""

    def __init__(self, run: Run, folder: RunFolder, source: ImageSource) -> None:
        total = len(source) + len(source.refused)
        self._list = SetAside(folder.set_aside, total, run.max_set_aside)
        self.waiting: Failures = []
        if here().first:
            self._list.add(source.refused)

    def add(self, failures: Failures) -> None:
        """Add (name, reason) pairs; with several processes they wait for the next `gather`."""
        if here().count == 1:
            self._list.add(failures)
        else:
            self.waiting += failures

    def gather(self) -> None:
        """Send all pairs to the first process; all processes must call this."""
        lists = everyones(self.waiting)
        self.waiting = []
        if here().first:
            self._list.add([failure for failures in lists for failure in failures])
