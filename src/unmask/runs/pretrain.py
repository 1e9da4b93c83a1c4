"""Pretraining, from the first image to the last checkpoint. Read top to bottom."""

import time
from collections.abc import Iterator
from threading import Event
from typing import NamedTuple

import torch

from unmask.contracts import ImageSource
from unmask.data.loader import Viewed, batches
from unmask.data.set_aside import SetAside
from unmask.errors import DivergedError
from unmask.objectives.mae import MaskedAutoencoder
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.checkpoint import Checkpoint
from unmask.training.hardware import find_device
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


def pretrain(
    run: Run,
    folder: RunFolder,
    source: ImageSource,
    objective: MaskedAutoencoder,
    stop: Event,
    start: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Train an objective, from a checkpoint if one is given, until the end or until `stop` is set.

    Raises:
        DataError: when too many images cannot be used.
        DivergedError: when the loss is no longer finite; nothing is saved after it.
        ResourceError: when the disk is full.
    """
    recipe, hardware = run.recipe, run.hardware
    device = find_device(hardware.device)
    torch.set_num_threads(hardware.threads)

    objective.to(device).train()
    optimizer = recipe.optimizer.build(objective)
    first_step = start.restore(objective, optimizer) if start else 0

    set_aside = SetAside(folder.set_aside, len(source) + len(source.refused), run.max_set_aside)
    set_aside.add(source.refused)
    logbook = Logbook(folder.log, first_step)
    stream = batches(
        Viewed(source, recipe.views, recipe.image_size, run.seed),
        batch_size=recipe.batch_size,
        first_step=first_step,
        steps=run.steps,
        workers=hardware.workers,
        device=device,
        set_aside=set_aside,
    )
    reports = train(
        objective,
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
    for report in reports:
        now = time.perf_counter()
        logbook.add(report, now - stepped)
        stepped = now

        stopping = stop.is_set()
        save = report.step == run.steps or stopping or now - saved >= 60 * run.save_every_minutes
        lines: list[dict[str, float]] = []
        if save or now - written >= _WRITE_SECONDS:
            lines, written = logbook.write(), now
        if save:
            _check_weights(objective, report.step)
            folder.save(run, report.step, objective, optimizer)
            saved = stepped = time.perf_counter()

        yield Progress(report.step, run.steps, lines, save)
        if stopping:
            return


def _check_weights(objective: MaskedAutoencoder, step: int) -> None:
    """Raises DivergedError if the last update left weights that are not finite."""
    bad = [name for name, p in objective.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise DivergedError(
            f"step {step} left weights that are not finite ({bad[0]} among {len(bad)}), so they were "
            "not saved; the learning rate is too high (try half of --schedule.base-lr)"
        )
