"""What a run will do, take and need, told before its first step."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from unmask.contracts import ImageSource
from unmask.data.loader import Wanted, example_of
from unmask.errors import ResourceError, SettingsError
from unmask.masking import count_visible
from unmask.patches import patch_grid
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.runs.feeding import feed_for
from unmask.runs.run import Run, parameter_count
from unmask.training.hardware import Hardware, cores, memory_available
from unmask.training.step_cost import Cost, measure_cost
from unmask.traits import Hiding, Targeted, Undivided

_USABLE = 0.85
_LARGEST_TRIAL = 64, 1024  # images on a CPU, and on a GPU, whose time small batches do not tell


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The expectations of a run."""

    encoder_parameters: int
    """Parameters that stay after pretraining."""

    decoder_parameters: int
    """Parameters that are thrown away."""

    kept: int
    """Patches that the encoder sees of each image, or of the first view of it."""

    patches: int
    """Patches of each image, or of the first view of it."""

    step_seconds: float
    """Expected time of a step at the full size; smaller crops take less."""

    memory_bytes: int
    """Expected peak of memory, this process's own included."""

    seconds: float
    """Expected time of all steps, if all had the full size."""


def trial(
    module: nn.Module,
    recipe: Recipe | Transfer | Tokenizing,
    source: ImageSource,
    hardware: Hardware,
) -> Cost:
    """Measure what a step costs here, on images of the source; the module stays as it is.

    Raises:
        ResourceError: if not even the weights, or one image, fit in memory.
        DataError: if none of the first images can be decoded.
    """
    device = torch.device(hardware.device)
    learning = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    room = memory_available(device)
    if 4 * learning > room:
        raise ResourceError(
            f"weights, gradients and optimizer need {_gib(4 * learning)}, and {_gib(room)} are "
            "free; choose a smaller recipe with --recipe"
        )
    module.to(device).train()
    feed = feed_for(source, recipe.views, recipe.image_size, 0, hardware)
    return measure_cost(
        module,
        recipe.optimizer.build(module),
        example=example_of(feed, recipe.image_size, device),
        largest=min(recipe.batch_size, _LARGEST_TRIAL[device.type != "cpu"]),
        device=device,
        precision=hardware.precision,
    )


def fitting_micro_batch(
    cost: Cost, batch_size: int, wanted: int | None, device: torch.device, sharing: int = 1
) -> int:
    """The images to compute at a time: as wanted, or the most that fit (the batch, a half, a quarter, ...).

    `sharing` processes take their memory from the same.

    Raises:
        ResourceError: naming what would fit.
    """
    room = int(_USABLE * memory_available(device)) // sharing - cost.bytes_fixed
    most = room // max(1, cost.bytes_per_image)
    if most < 1:
        raise ResourceError(
            f"one image at a time needs {_gib(cost.memory(1))}, and {_gib(memory_available(device))} "
            "are free; choose a smaller recipe with --recipe or a smaller --image-size"
        )
    if wanted is None:
        pieces = 1
        while -(-batch_size // pieces) > most:
            pieces *= 2
        return -(-batch_size // pieces)
    if wanted > most:
        raise ResourceError(
            f"{wanted} images at a time need {_gib(cost.memory(wanted))}, and "
            f"{_gib(memory_available(device))} are free; --micro-batch {most} would fit, with the "
            "same result but for rounding"
        )
    return min(wanted, batch_size)


def check_whole(module: object, micro_batch: int, part: int) -> None:
    """Refuse to compute in parts what cannot be added up from them; `part` is a process's of the batch.

    Raises:
        SettingsError: with what would do.
    """
    if isinstance(module, Undivided) and micro_batch < part:
        raise SettingsError(
            f"the {part} images of a step cannot be computed {micro_batch} at a time, because {module.undivided}; "
            f"take --micro-batch {part}, or, if memory is too small, --batch-size {micro_batch} (the learning rate "
            "goes with it) or more processes"
        )


def make_plan(
    run: Run, recipe: Recipe, objective: nn.Module, source: ImageSource, cost: Cost
) -> Plan:
    """The plan of a run of pretraining, from measured costs."""
    hardware = run.hardware
    step_seconds = seconds_of_step(run, source, cost)
    encoder = parameter_count(objective.get_submodule("encoder"))
    grids = [patch_grid(size, recipe.encoder.patch_size) for size in recipe.every_size()]
    kept = patches = grids[-1].height * grids[-1].width
    predicted = objective.target if isinstance(objective, Targeted) else None
    target = parameter_count(predicted) if isinstance(predicted, nn.Module) else 0
    if isinstance(recipe.objective, Hiding):
        for grid in grids:  # the smaller too, so that one that cannot be masked is refused now
            kept = count_visible(recipe.objective.masking, grid)
    return Plan(
        encoder_parameters=encoder,
        decoder_parameters=parameter_count(objective) - encoder - target,
        kept=kept,
        patches=patches,
        step_seconds=step_seconds,
        memory_bytes=cost.memory(hardware.micro_batch) + cost.bytes_process,
        seconds=step_seconds * run.steps,
    )


def seconds_of_step(run: Run, source: ImageSource, cost: Cost) -> float:
    """Expected time of a step, loading counted."""
    hardware = run.hardware
    batch_size = run.recipe.batch_size // hardware.processes
    computing = cost.step_seconds(batch_size, hardware.micro_batch)
    loading = _loading_seconds(run, source) * batch_size
    if hardware.workers == 0:
        return computing + loading
    if hardware.device == "cpu":  # the loading processes take their share of the same cores
        return computing + loading / cores()
    return max(computing, loading / hardware.workers)


def _loading_seconds(run: Run, source: ImageSource) -> float:
    """Seconds that a loading process takes for one image, measured on a few."""
    size = run.recipe.image_size
    feed = feed_for(source, run.recipe.views, size, run.seed, run.hardware)
    count = min(32, len(source))
    keys = [(0, position * len(source) // count) for position in range(count)]
    feed.load(Wanted(keys[:2], 0, size), [])
    started = time.perf_counter()
    feed.load(Wanted(keys, 0, size), [])
    return (time.perf_counter() - started) / count


def _gib(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
