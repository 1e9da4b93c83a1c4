"""Measure this machine with a recipe: peak speed, the training step, the loader, and both together.

Each part has its own time limit; a small recipe on two cores takes less than a minute.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from unmask.channels import IMAGENET
from unmask.contracts import Batch, ImageSource, Reports
from unmask.data.in_memory import noise_images
from unmask.data.loader import Feed, SetAside, batches, example_of
from unmask.errors import ResourceError
from unmask.formats.model import FORMAT, ModelSpec
from unmask.recipes import Recipe
from unmask.runs.bottleneck import Bench, LoaderSpeed, Machine, StepSpeed, Together, verdict
from unmask.runs.feeding import feed_for
from unmask.training.hardware import Hardware, cores, memory_available, wait_for
from unmask.training.kernels import prepared
from unmask.training.loop import Planned, train
from unmask.training.step_cost import (
    copy_ceiling,
    flops_per_image,
    forget_peak,
    matrix_ceiling,
    peak_memory,
)
from unmask.training.step_memory import saved_bytes

_STEP_SECONDS = 16.0  # for all batch sizes together
_SIZE_SECONDS = 5.0  # for one batch size
_LOADER_SECONDS = 6.0
_TOGETHER_SECONDS = 10.0
_MOST_STEPS = 30
_USABLE = 0.85  # share of free memory to use
_FIRST_ON_CPU, _FIRST_ON_GPU, _GROWTH = 4, 32, 4
_LONG = 1_000_000  # steps; so many that compiling pays off


class Bed(NamedTuple):
    """The parts to measure, built once."""

    objective: nn.Module
    recipe: Recipe
    hardware: Hardware
    device: torch.device
    flops: int
    ceiling: float
    feed: Feed
    """The feed of the given images, or of noise."""
    example: Callable[[int], Batch]
    """Makes a batch with this many images, on the device."""


def bench(
    name: str,
    recipe: Recipe,
    hardware: Hardware,
    source: ImageSource | None,
    micro_batch: int | None,
) -> Bench:
    """Measure all parts; only one batch size if `micro_batch` is given.

    Raises:
        ResourceError: if the smallest batch does not fit in memory.
        DataError: if images cannot be used.
    """
    bed, machine = _bed(recipe, hardware, source)
    steps, stopped = _steps(bed, micro_batch)
    result = Bench(
        recipe=name,
        image_size=str(recipe.image_size),
        flops_per_image=bed.flops,
        machine=machine,
        steps=steps,
        stopped=stopped,
        loader=None,
        together=None,
        bottleneck="",
        advice=(),
    )
    if source is not None:
        images = result.best.images
        result = replace(result, loader=_loader(bed, images), together=_together(bed, images))
    bottleneck, advice = verdict(result, packed=source is None or source.in_memory)
    return replace(result, bottleneck=bottleneck, advice=tuple(advice))


def _bed(recipe: Recipe, hardware: Hardware, source: ImageSource | None) -> tuple[Bed, Machine]:
    device, size = torch.device(hardware.device), recipe.image_size
    if source is None:  # noise is not in files, so the GPU cannot decode it
        source, hardware = noise_images(size, 3), replace(hardware, decode="cpu")
    middle, black, white = ((value,) * source.channels for value in (0.5, 0.0, 1.0))
    feed = feed_for(source, recipe.views, size, 0, hardware)
    spec = ModelSpec(
        format=FORMAT,
        encoder=recipe.encoder,
        objective=recipe.objective,
        image_size=size,
        channels=source.channels,
        # arbitrary: they do not change the time
        statistics=replace(IMAGENET, mean=middle, std=middle, low=black, high=white),
        origin="measured only",
    )
    ceiling = matrix_ceiling(device, hardware.precision)
    objective = spec.build_objective(0).to(device).train()
    example = example_of(feed, size, device)
    flops = flops_per_image(objective, example, device, hardware.precision)
    machine = Machine(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        precision=hardware.precision,
        threads=hardware.threads,
        cores=cores(),
        torch=torch.__version__,
        matrix_flops_per_second=ceiling,
        bfloat16_flops_per_second=matrix_ceiling(device, "bfloat16"),
        copy_bytes_per_second=copy_ceiling(device),
    )
    return Bed(objective, recipe, hardware, device, flops, ceiling, feed, example), machine


def _steps(bed: Bed, micro_batch: int | None) -> tuple[tuple[StepSpeed, ...], str]:
    """Measure larger and larger batches until time, memory or the recipe's batch size is reached; says which."""
    first = _FIRST_ON_GPU if bed.device.type == "cuda" else _FIRST_ON_CPU
    size = micro_batch or min(first, bed.recipe.batch_size)
    largest = micro_batch or bed.recipe.batch_size
    each = saved_bytes(bed.objective, bed.example, bed.device, bed.hardware.precision)
    began = time.perf_counter()
    speeds: list[StepSpeed] = []
    while True:
        if each * size > _USABLE * memory_available(bed.device):
            stopped = f"{size} images would not fit in memory"
            break
        try:
            speeds.append(_step_speed(bed, size))
        except ResourceError:
            stopped = f"{size} images do not fit in memory"
            break
        if size >= largest:
            stopped = "" if micro_batch else "this is the batch size of the recipe"
            break
        size = min(size * _GROWTH, largest)
        spent = time.perf_counter() - began
        if spent + 3 * size / speeds[-1].images_per_second > _STEP_SECONDS:
            stopped = f"{size} images would take too long to measure here"
            break
    if not speeds:
        raise ResourceError(
            f"{stopped}; set a smaller --micro-batch, or choose a smaller recipe with --recipe or a smaller "
            "--image-size"
        )
    return tuple(speeds), stopped


def _step_speed(bed: Bed, images: int) -> StepSpeed:
    batch = bed.example(images)
    forget_peak(bed.device)
    torch.compiler.reset()
    reports = _trained(bed, itertools.repeat(batch), images)
    began = time.perf_counter()
    next(reports)
    times: list[float] = []
    while not times or (len(times) < _MOST_STEPS and time.perf_counter() - began < _SIZE_SECONDS):
        wait_for(bed.device)
        started = time.perf_counter()
        next(reports)
        wait_for(bed.device)
        times.append(time.perf_counter() - started)
    low, middle, high = statistics.quantiles(times * 2, n=4, method="inclusive")
    rate = images / middle
    return StepSpeed(
        images=images,
        steps=len(times),
        median_seconds=middle,
        quartiles_seconds=(low, high),
        images_per_second=rate,
        flops_per_second=rate * bed.flops,
        mfu=rate * bed.flops / bed.ceiling,
        peak_memory=peak_memory(bed.device),
    )


def _trained(bed: Bed, stream: Iterator[Batch], images: int) -> Reports:
    """Training steps as in a run, with a learning rate of 0, so that weights do not change."""
    around = prepared(
        bed.objective,
        [bed.example],
        bed.device,
        bed.hardware.precision,
        micro_batch=images,
        steps=_LONG,
    )
    return around(
        train(
            bed.objective,
            stream,
            bed.recipe.optimizer.build(bed.objective),
            Planned(_LONG, lambda _: 0.0),
            first_step=0,
            seed=0,
            device=bed.device,
            precision=bed.hardware.precision,
            micro_batch=images,
        )
    )


def _stream(bed: Bed, images: int, folder: str) -> Iterator[Batch]:
    return batches(
        bed.feed,
        batch_size=images,
        first_step=0,
        steps=_LONG,
        workers=bed.hardware.workers,
        device=bed.device,
        set_aside=SetAside(Path(folder) / "set_aside.csv", len(bed.feed.source), limit=0.5),
    )


def _loader(bed: Bed, images: int) -> LoaderSpeed:
    with tempfile.TemporaryDirectory() as folder:
        stream = _stream(bed, images, folder)
        next(stream)  # starts the loading processes
        began, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - began < _LOADER_SECONDS:
            next(stream)
            count += 1
        wait_for(bed.device)
        seconds = time.perf_counter() - began
        del stream
    return LoaderSpeed(
        images_per_second=count * images / seconds,
        workers=bed.hardware.workers,
        images=count * images,
    )


def _together(bed: Bed, images: int) -> Together:
    with tempfile.TemporaryDirectory() as folder:
        reports = _trained(bed, _stream(bed, images, folder), images)
        next(reports)
        wait_for(bed.device)
        began, waited, count = time.perf_counter(), 0.0, 0
        while count == 0 or time.perf_counter() - began < _TOGETHER_SECONDS:
            waited += next(reports).waiting_seconds
            wait_for(bed.device)
            count += 1
        seconds = time.perf_counter() - began
        del reports
    return Together(
        images_per_second=count * images / seconds, waiting=waited / seconds, steps=count
    )
