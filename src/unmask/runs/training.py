"""Training, from the first image to the last checkpoint, of pretraining and fine-tuning alike. Read top to bottom."""

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import NamedTuple

import torch
from torch import nn

from unmask.contracts import Batch, ImageSource
from unmask.data.gpu_crops import hold
from unmask.data.gpu_decode import Encoded
from unmask.data.loader import Failures, Viewed, batches
from unmask.data.multi_views import sizes_of
from unmask.data.order import rows_of
from unmask.data.set_aside import SetAside
from unmask.runs.collapse import Watch
from unmask.runs.folder import COMPANIONS, RunFolder
from unmask.runs.saving import Saver
from unmask.runs.transfer import AnyRun
from unmask.targets.tokenizer import current_names
from unmask.training.checkpoint import Checkpoint, restore_optimizer
from unmask.training.distributed import agreed, everyones, here, spread
from unmask.training.flops import Meter, first_ceiling, flops_per_image
from unmask.training.hardware import find_device, memory_available, wait_for
from unmask.training.kernels import prepared
from unmask.training.logbook import Logbook
from unmask.training.loop import train

_WRITE_SECONDS = 1.0
_RESIDENT = 0.1  # of a GPU's free memory may be filled with images


class Progress(NamedTuple):
    """Where a run stands after a step."""

    step: int
    steps: int
    lines: list[dict[str, float]]
    """Log lines written since the last report; mostly none."""
    saved: bool
    """Whether a checkpoint of it is written, or on its way to the disk."""


def training(
    run: AnyRun,
    folder: RunFolder,
    source: ImageSource,
    trainable: nn.Module,
    stop: Event,
    start: Checkpoint | None = None,
    change: Callable[[Batch, int], Batch] | None = None,
    watch: Watch | None = None,
) -> Iterator[Progress]:
    """Train a module, from a checkpoint if one is given, until the end or until `stop` is set.

    `change` may change the batch of a step before it is trained on. What `watch` sees after
    some steps stands in their lines of the log; its time is not theirs. Of several processes, each calls this and
    has its rows of every batch; they stop and save at the same step, whichever wanted it.

    Raises:
        DataError: when too many images cannot be used.
        DivergedError: when the loss is no longer finite; nothing is saved after it.
        ResourceError: when the disk is full.
    """
    recipe, hardware, processes = run.recipe, run.hardware, here()
    device = find_device(hardware.device)
    torch.set_num_threads(hardware.threads)

    if start:
        trainable.load_state_dict(start.read("model") | start.read_if_there(COMPANIONS))
    whole_on = torch.device("cpu") if hardware.shard else device
    trainable.to(whole_on).train()
    flops = {
        size: flops_per_image(
            trainable,
            size,
            run.channels,
            whole_on,
            hardware.precision,
            sizes_of(recipe.views, size)[1:],
        )
        for size in recipe.every_size()
    }
    ceiling = processes.count * first_ceiling(device, hardware.precision, hardware.threads)
    around = prepared(
        trainable,
        [sizes_of(recipe.views, size) for size in recipe.every_size()],
        run.channels,
        whole_on,
        hardware.precision,
        micro_batch=hardware.micro_batch,
        steps=run.steps,
    )
    spread_out = spread(trainable, device, hardware.shard)
    optimizer = recipe.optimizer.build(trainable)
    if start:
        # of a tokenizer run that an older version began; names of other runs do not change
        state = current_names(start.read("training/optimizer"))
        restore_optimizer(optimizer, trainable, state)
    first_step = start.info.step if start else 0

    total = len(source) + len(source.refused)
    set_aside = _Gathered(SetAside(folder.set_aside, total, run.max_set_aside))
    if processes.first:
        set_aside.kept.add(source.refused)
    logbook = Logbook(folder.log, first_step, Meter(device, flops, ceiling))
    images = Viewed(source, recipe.views, recipe.size_at, run.seed)
    held = None
    if hardware.decode == "gpu":
        images = Encoded(images)
    elif device.type == "cuda":
        held = hold(images, device, hardware.workers, room=_RESIDENT * memory_available(device))
    stream = batches(
        held.drawn if held else images,
        batch_size=recipe.batch_size,
        first_step=first_step,
        steps=run.steps,
        workers=hardware.workers,
        device=device,
        set_aside=set_aside,
        rows=rows_of(processes.rank, processes.count, recipe.batch_size),
    )
    if held is not None:
        stream = map(held.shown, stream)
    if change is not None:
        stream = (change(batch, step) for step, batch in enumerate(stream, start=first_step))
    reports = train(
        spread_out,
        stream,
        optimizer,
        run.rate,
        first_step=first_step,
        steps=run.steps,
        seed=run.seed,
        device=device,
        precision=hardware.precision,
        micro_batch=hardware.micro_batch,
    )

    saver = Saver(run, folder, trainable, optimizer)
    stepped = written = saved = time.perf_counter()
    try:
        for report in around(reports):
            looks = watch is not None and watch.due(report.step)
            if looks:
                wait_for(device)  # or the GPU would go on in time that is not counted
            now = time.perf_counter()
            logbook.add(report, now - stepped)
            if watch is not None and looks:
                logbook.note(report.step, watch.look())
            stepped = time.perf_counter()

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
