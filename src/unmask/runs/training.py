"""Training, from the first image to the last checkpoint, of pretraining and fine-tuning alike. Read top to bottom."""

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import NamedTuple

import torch
from torch import nn

from unmask.contracts import Batch, ImageSource
from unmask.data.loader import Viewed, batches
from unmask.data.set_aside import SetAside
from unmask.errors import DivergedError
from unmask.runs.folder import RunFolder
from unmask.runs.transfer import AnyRun
from unmask.training.checkpoint import Checkpoint
from unmask.training.hardware import find_device
from unmask.training.kernels import prepared
from unmask.training.logbook import Logbook
from unmask.training.loop import train
from unmask.training.speed import meter_of

_WRITE_SECONDS = 1.0


class Progress(NamedTuple):
    """Where a run stands after a step."""

    step: int
    steps: int
    lines: list[dict[str, float]]
    """Log lines written since the last report; mostly none."""
    saved: bool


def training(
    run: AnyRun,
    folder: RunFolder,
    source: ImageSource,
    trainable: nn.Module,
    stop: Event,
    start: Checkpoint | None = None,
    change: Callable[[Batch, int], Batch] | None = None,
) -> Iterator[Progress]:
    """Train a module, from a checkpoint if one is given, until the end or until `stop` is set.

    `change` may change the batch of a step before it is trained on.

    Raises:
        DataError: when too many images cannot be used.
        DivergedError: when the loss is no longer finite; nothing is saved after it.
        ResourceError: when the disk is full.
    """
    recipe, hardware = run.recipe, run.hardware
    device = find_device(hardware.device)
    torch.set_num_threads(hardware.threads)

    trainable.to(device).train()
    optimizer = recipe.optimizer.build(trainable)
    first_step = start.restore(trainable, optimizer) if start else 0

    set_aside = SetAside(folder.set_aside, len(source) + len(source.refused), run.max_set_aside)
    set_aside.add(source.refused)
    meter = meter_of(trainable, recipe.image_size, run.channels, device, hardware.precision)
    logbook = Logbook(folder.log, first_step, meter)
    stream = batches(
        Viewed(source, recipe.views, recipe.image_size, run.seed),
        batch_size=recipe.batch_size,
        first_step=first_step,
        steps=run.steps,
        workers=hardware.workers,
        device=device,
        set_aside=set_aside,
    )
    if change is not None:
        stream = (change(batch, step) for step, batch in enumerate(stream, start=first_step))
    around = prepared(
        trainable,
        recipe.image_size,
        run.channels,
        device,
        hardware.precision,
        micro_batch=hardware.micro_batch,
        steps=run.steps,
    )
    reports = train(
        trainable,
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

    stepped = written = saved = time.perf_counter()
    for report in around(reports):
        now = time.perf_counter()
        logbook.add(report, now - stepped)
        stepped = now

        stopping = stop.is_set()
        save = report.step == run.steps or stopping or now - saved >= 60 * run.save_every_minutes
        lines: list[dict[str, float]] = []
        if save or now - written >= _WRITE_SECONDS:
            lines = logbook.write()
            stepped = written = time.perf_counter()
        if save:
            _check_weights(trainable, report.step)
            folder.save(run, report.step, trainable, optimizer)
            saved = stepped = time.perf_counter()

        yield Progress(report.step, run.steps, lines, save)
        if stopping:
            return


def _check_weights(trainable: nn.Module, step: int) -> None:
    """Raises DivergedError if the last update left weights that are not finite."""
    bad = [name for name, p in trainable.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise DivergedError(
            f"step {step} left weights that are not finite ({bad[0]} among {len(bad)}), so they were "
            "not saved; the learning rate is too high (try half of --schedule.base-lr)"
        )
