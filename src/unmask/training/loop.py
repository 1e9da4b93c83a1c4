"""The training loop: takes a step, yields a report. The caller logs, saves and stops."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch

from unmask.contracts import Batch, Loss, Moment, Part, Reports, Size, StepReport, Trainable
from unmask.errors import ResourceError
from unmask.randomness import generator
from unmask.training.distributed import plain, reducing
from unmask.training.hardware import Precision, autocast, out_of_memory
from unmask.training.loss_scale import LossScale, loss_scale_for
from unmask.training.optimizers import clip
from unmask.training.parameter_groups import set_rates
from unmask.traits import Following, Preparing


@runtime_checkable
class Course(Protocol):
    """How long the training is, and its learning rate."""

    @property
    def steps(self) -> int:
        """The number of steps; the caller may change it between steps."""
        ...

    def done(self, step: int) -> float:
        """The share of the training that is done before a step, counted from 0."""
        ...

    def rate(self, step: int, /) -> float:
        """The learning rate of a step, counted from 0."""
        ...


@dataclass(frozen=True)
class Planned:
    """A course with a fixed number of steps."""

    steps: int
    rate: Callable[[int], float]

    def done(self, step: int) -> float:
        """See `Course`."""
        return step / self.steps


def train(
    trainable: Trainable,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    course: Course,
    *,
    first_step: int,
    seed: int,
    device: torch.device,
    precision: Precision,
    micro_batch: int,
    loss_scale: LossScale | None = None,
) -> Reports:
    """Train from `first_step` to the end of the course; yields one report per step.

    The loop never waits for the GPU: losses stay tensors until the caller reads them. All randomness of a step comes
    from (seed, step). With several processes, each computes its part of every batch and reports the loss of that part.
    `loss_scale` follows the steps; float16 gets a new one by default. A step whose gradients overflow is skipped, but
    counts: the next one has the next images and rate.
    """
    loss_scale = loss_scale or loss_scale_for(precision)
    module = plain(trainable)
    step = first_step
    while step < course.steps:
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        learning_rate, moment = course.rate(step), Moment(step, course.steps, batch.epoch)
        set_rates(optimizer, learning_rate, course.done(step))
        randomness = partial(generator, device, "step", seed, step)
        try:
            scale = loss_scale.scale if loss_scale else 1.0
            loss = _backward(trainable, batch, randomness, device, precision, micro_batch, scale)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise ResourceError(
                f"step {step + 1} does not fit in memory with {micro_batch} images at a time; "
                f"try --micro-batch {max(1, micro_batch // 2)}, which changes results only by rounding"
            ) from error
        if isinstance(module, Preparing):
            module.before_step(moment)
        updated = _update(optimizer, loss_scale, step)
        if isinstance(module, Following):
            module.after_step(moment)
        step += 1
        yield StepReport(
            step=step,
            loss=loss.total,
            parts=loss.parts,
            learning_rate=learning_rate,
            images=batch.whole,
            size=Size(*batch.images.shape[-2:]),
            waiting_seconds=waited,
            loss_scale=scale if loss_scale else None,
            skipped=not updated,
        )


def _update(optimizer: torch.optim.Optimizer, loss_scale: LossScale | None, step: int) -> bool:
    """Update the weights and forget the gradients; False if gradients overflowed, and the weights stay."""
    finite = loss_scale is None or loss_scale.unscale(optimizer)
    if finite:
        clip(optimizer)
        optimizer.step()
    optimizer.zero_grad()
    if loss_scale is not None:
        loss_scale.follow(finite=finite, step=step + 1)
    return finite


def _backward(
    trainable: Trainable,
    batch: Batch,
    randomness: Callable[[], torch.Generator],
    device: torch.device,
    precision: Precision,
    micro_batch: int,
    scale: float,
) -> Loss:
    """Accumulate the gradients of the mean loss of a batch, times `scale`, over micro-batches.

    Random numbers are drawn for the whole step, and each micro-batch uses its rows of them. So each micro-batch gets a
    new generator with the same state.
    """
    images = len(batch.index)
    losses: list[Loss] = []
    for start in range(0, images, micro_batch):
        part = _rows(batch, start, start + micro_batch)
        share = len(part.index) / images
        with reducing(trainable, when=start + micro_batch >= images):
            with autocast(device, precision):
                loss = trainable(part, randomness())
            (loss.total * (share * scale)).backward()
        losses.append(
            Loss(
                loss.total.detach() * share, {k: v.detach() * share for k, v in loss.parts.items()}
            )
        )
    total = torch.stack([loss.total for loss in losses]).sum()
    names = losses[0].parts
    return Loss(total, {k: torch.stack([loss.parts[k] for loss in losses]).sum() for k in names})


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    images = len(batch.index)
    if start == 0 and stop >= images:
        return batch
    whole = batch.part or Part(torch.arange(images), images)
    return batch._replace(part=whole).rows(slice(start, stop))
