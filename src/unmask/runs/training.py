"""Training, from the first image to the last checkpoint, whatever the job. Read top to bottom."""

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import NamedTuple

import torch
from torch import nn

from unmask.contracts import Batch, ImageSource, Reports
from unmask.data.loader import Failures, Feed, batches, example_of
from unmask.data.order import rows_of
from unmask.data.set_aside import SetAside
from unmask.runs.encoder_weights import COMPANIONS
from unmask.runs.feeding import feed_for
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.saving import Saver
from unmask.targets.tokenizer import current_names
from unmask.training.checkpoint import Checkpoint, restore_optimizer
from unmask.training.distributed import agreed, everyones, here, spread
from unmask.training.flops import Meter, first_ceiling, flops_per_image
from unmask.training.hardware import find_device, wait_for
from unmask.training.kernels import prepared
from unmask.training.logbook import Logbook
from unmask.training.loop import train

_WRITE_SECONDS = 1.0


class Progress(NamedTuple):
    """Where a run stands after a step."""

    step: int
    steps: int
    lines: list[dict[str, float]]
    """Log lines written since the last report; mostly none."""
    saved: bool
    """Whether a checkpoint of it is written, or on its way to the disk."""


def training(
    run: Run,
    folder: RunFolder,
    source: ImageSource,
    module: nn.Module,
    stop: Event,
    start: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Do a run's job on its training images, from a checkpoint if one is given, until the end or until `stop` is set.

    With several processes, each calls this and gets its rows of every batch; they stop and save at the same
    step, whichever wanted it.

    Raises:
        DataError: when too many images cannot be used.
        DivergedError: when the loss is no longer finite; nothing is saved after it.
        ResourceError: when the disk is full.
    """
    # What must be known of the training images before the first step of all: targets are fitted to them.
    if start is None:
        run.job.fit(run, source, module)
    watch = run.job.watch(run, source, module)

    # Module, optimizer and log, as the checkpoint left them.
    device = find_device(run.hardware.device)
    torch.set_num_threads(run.hardware.threads)
    feed = feed_for(source, run.recipe.views, run.recipe.size_at, run.seed, run.hardware)
    equipped = _equip(run, module, feed, device, start)
    first_step = start.info.step if start else 0
    logbook = Logbook(folder.log, first_step, equipped.meter)
    saver = Saver(run, folder, module, equipped.optimizer)
    set_aside = _gathered(run, folder, source)

    # The steps themselves.
    stream = _batches(run, feed, device, first_step, set_aside)
    reports = train(
        equipped.module,
        stream,
        equipped.optimizer,
        run.rate,
        first_step=first_step,
        steps=run.steps,
        seed=run.seed,
        device=device,
        precision=run.hardware.precision,
        micro_batch=run.hardware.micro_batch,
    )
    stepped = written = saved = time.perf_counter()
    try:
        for report in equipped.around(reports):
            # Now and then: a look at the embedding. Its time is not the step's.
            looks = watch is not None and watch.due(report.step)
            if looks:
                wait_for(device)  # or the GPU would go on in time that is not counted
            now = time.perf_counter()
            logbook.add(report, now - stepped)
            if watch is not None and looks:
                logbook.note(report.step, watch.look())
            stepped = time.perf_counter()

            # All processes agree on what is due: to stop, to save, to write the log, to list unusable images.
            stopping, save, write, unusable, writing = agreed(
                stop.is_set(),
                report.step == run.steps or now - saved >= 60 * run.save_every_minutes,
                now - written >= _WRITE_SECONDS,
                bool(set_aside.untold),
                saver.busy,
            )
            save = save or stopping
            if unusable:
                set_aside.tell()
            if not writing:
                saver.settle()

            # The log first: it finds a loss that is not finite before a checkpoint could hold its consequences.
            lines: list[dict[str, float]] = []
            if save or write:
                lines = logbook.write()
                stepped = written = time.perf_counter()
            if save:
                saver.save(report.step, last=stopping or report.step == run.steps)
                saved = stepped = time.perf_counter()

            yield Progress(report.step, run.steps, lines, save)
            if stopping:
                stop.set()  # where another process was told to
                return
    finally:
        saver.leave()


class _Equipped(NamedTuple):
    """A module ready to train."""

    module: nn.Module
    """As the loop calls it: over all processes."""
    optimizer: torch.optim.Optimizer
    around: Callable[[Reports], Reports]
    """What goes around the steps: the choice of attention kernels on a GPU."""
    meter: Meter


def _equip(
    run: Run, module: nn.Module, feed: Feed, device: torch.device, start: Checkpoint | None
) -> _Equipped:
    """Weights, FLOPs, compiling, processes and optimizer, in the order that each of them needs.

    Weights come first, since all else looks at the module. FLOPs are counted before compiling, which hides them
    from the counter. Processes share the module before the optimizer is built, which holds the parameters, or
    with `--shard` the parts of them, that the process then has.
    """
    recipe, hardware = run.recipe, run.hardware
    if start:
        module.load_state_dict(start.read("model") | start.read_if_there(COMPANIONS))
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
        # of a tokenizer that an older version began; names of other runs do not change
        state = current_names(start.read("training/optimizer"))
        restore_optimizer(optimizer, module, state)
    return _Equipped(spread_out, optimizer, around, Meter(device, flops, ceiling))


def _batches(
    run: Run, feed: Feed, device: torch.device, first_step: int, set_aside: "_Gathered"
) -> Iterator[Batch]:
    """This process's rows of the batches from a step on, on the device, changed as the job wants."""
    recipe, hardware, processes = run.recipe, run.hardware, here()
    stream = batches(
        feed,
        batch_size=recipe.batch_size,
        first_step=first_step,
        steps=run.steps,
        workers=hardware.workers,
        device=device,
        set_aside=set_aside,
        rows=rows_of(processes.rank, processes.count, recipe.batch_size),
    )
    change = run.job.change(run)
    if change is None:
        return stream
    return (change(batch, step) for step, batch in enumerate(stream, start=first_step))


def _gathered(run: Run, folder: RunFolder, source: ImageSource) -> "_Gathered":
    """The list of unusable images, begun with those that the scan refused."""
    total = len(source) + len(source.refused)
    set_aside = _Gathered(SetAside(folder.set_aside, total, run.max_set_aside))
    if here().first:
        set_aside.kept.add(source.refused)
    return set_aside


class _Gathered:
    """The first process's list of images that could not be used, with those that the others meet."""

    def __init__(self, kept: SetAside) -> None:
        self.kept = kept
        self.untold: Failures = []

    def add(self, failures: Failures) -> None:
        """Note (name, reason) pairs; of several processes, to be told later."""
        if here().count == 1:
            self.kept.add(failures)
        else:
            self.untold += failures

    def tell(self) -> None:
        """Bring all lists to the first process; all must call it."""
        told = everyones(self.untold)
        self.untold = []
        if here().first:
            self.kept.add([failure for failures in told for failure in failures])
