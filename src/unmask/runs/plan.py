"""The plan of a run before its first step: time, micro-batch and number of parameters."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.annotations import nested_map
from unmask.contracts import ImageSource
from unmask.data.loader import BATCHES_AHEAD, Wanted, example_of
from unmask.errors import ResourceError, SettingsError
from unmask.masking import count_visible
from unmask.patches import patch_grid
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.runs.feeding import feed_for
from unmask.runs.run import Run, parameter_count
from unmask.training.distributed import here
from unmask.training.hardware import Hardware, cores, memory_available
from unmask.training.step_cost import Cost, check_room, gib, measure_cost
from unmask.traits import Grouping, Hiding, Targeted, Undivided

_USABLE = 0.85  # share of free memory to plan with
_LARGEST_TRIAL = 64, 1024  # images on a CPU and on a GPU, where small batches do not show the speed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a model and the expected time of a step."""

    encoder_parameters: int
    """Parameters that are kept after pretraining."""

    decoder_parameters: int
    """Parameters that are discarded after pretraining."""

    kept: int
    """Patches of an image (or of its first view) that the encoder sees."""

    patches: int
    """Patches of an image, or of its first view."""

    step_seconds: float
    """Expected time of a step at full image size; smaller crops take less."""


def trial(
    module: nn.Module,
    recipe: Recipe | Transfer | Tokenizing,
    source: ImageSource,
    hardware: Hardware,
) -> Cost:
    """Measure the cost of a step on this machine, with images of the source; leaves the module unchanged.

    Raises:
        ResourceError: if not even the weights, or one image at a time, fit in memory.
        DataError: if none of the first images can be decoded.
    """
    device = torch.device(hardware.device)
    trainable = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    room = memory_available(device)
    if 4 * trainable > room:
        raise ResourceError(
            f"weights, gradients and optimizer need {gib(4 * trainable)}, but only {gib(room)} are "
            "free; choose a smaller recipe with --recipe"
        )
    module.to(device).train()
    feed = feed_for(source, recipe.views, recipe.image_size, 0, hardware)
    state = 3 * trainable  # gradients, and two numbers of the optimizer for each weight
    return measure_cost(
        module,
        recipe.optimizer.build(module),
        example=example_of(feed, recipe.image_size, device),
        largest=min(recipe.batch_size, _LARGEST_TRIAL[device.type != "cpu"]),
        device=device,
        precision=hardware.precision,
        room=int(_USABLE * memory_available(device)) - state,
    )


def fitting_micro_batch(
    cost: Cost, batch_size: int, wanted: int | None, device: torch.device, sharing: int = 1
) -> int:
    """The micro-batch: as wanted, or the largest that fits (the batch, half of it, a quarter, ...).

    `sharing` processes share the memory.

    Raises:
        ResourceError: with a micro-batch that fits.
    """
    room = int(_USABLE * memory_available(device)) // sharing - cost.bytes_fixed
    most = room // max(1, cost.bytes_per_image)
    check_room(cost.bytes_per_image, room)
    if wanted is None:
        pieces = 1
        while -(-batch_size // pieces) > most:
            pieces *= 2
        return -(-batch_size // pieces)
    if wanted > most:
        raise ResourceError(
            f"{wanted} images at a time need {gib(cost.memory(wanted))}, but only "
            f"{gib(memory_available(device))} are free; --micro-batch {most} would fit, with the "
            "same result up to rounding"
        )
    return min(wanted, batch_size)


def check_parts(module: object, hardware: Hardware, batch_size: int) -> None:
    """Refuse micro-batches that the module cannot be trained with; see `check_whole` and `check_group`."""
    part = batch_size // hardware.processes
    check_whole(module, hardware.micro_batch, part)
    check_group(module, hardware.micro_batch, part, hardware.processes)


def check_whole(module: object, micro_batch: int, part: int) -> None:
    """Refuse micro-batches for an objective that needs the whole batch; `part` is the process's part of it.

    Raises:
        SettingsError: with a remedy.
    """
    if isinstance(module, Undivided) and micro_batch < part:
        raise SettingsError(
            f"the {part} images of a step cannot be computed {micro_batch} at a time, because {module.undivided};\n"
            f"set --micro-batch {part}, or, if that needs too much memory, --batch-size {micro_batch} (the learning "
            "rate scales with it)"
        )


def check_group(module: object, micro_batch: int, part: int, processes: int) -> None:
    """Refuse micro-batches of too few images for a module that normalises them together; `part` is that of a process.

    Raises:
        SettingsError: with a remedy.
    """
    if not isinstance(module, Grouping):
        return
    smallest = (part % micro_batch or micro_batch) * processes
    least = module.least_images
    if smallest < least:
        raise SettingsError(
            f"batch normalisation needs at least {least} images at a time, and a micro-batch of this run has {smallest} "
            f"({micro_batch} at a time of {part}, {processes} processes);\nset --micro-batch to at least "
            f"{-(-least // processes)} that divides {part}, or use task.head.norm:layer"
        )


def make_plan(
    run: Run, recipe: Recipe, objective: nn.Module, source: ImageSource, cost: Cost
) -> Plan:
    """The plan of a pretraining run, from measured costs."""
    encoder = parameter_count(objective.get_submodule("encoder"))
    grids = [patch_grid(size, recipe.encoder.patch_size) for size in recipe.every_size()]
    visible = patches = grids[-1].height * grids[-1].width
    target = objective.target if isinstance(objective, Targeted) else None
    target_parameters = parameter_count(target) if isinstance(target, nn.Module) else 0
    if isinstance(recipe.objective, Hiding):
        for grid in grids:  # all sizes, so that one that cannot be masked is refused now
            visible = count_visible(recipe.objective.masking, grid)
    return Plan(
        encoder_parameters=encoder,
        decoder_parameters=parameter_count(objective) - encoder - target_parameters,
        kept=visible,
        patches=patches,
        step_seconds=seconds_of_step(run, source, cost),
    )


def seconds_of_step(run: Run, source: ImageSource, cost: Cost) -> float:
    """Expected time of a step, including loading."""
    hardware = run.hardware
    batch_size = run.recipe.batch_size // hardware.processes
    computing = cost.step_seconds(batch_size, hardware.micro_batch)
    loading = _loading_seconds(run, source) * batch_size
    if hardware.workers == 0:
        return computing + loading
    if hardware.device == "cpu":  # loading processes use the same cores
        return computing + loading / cores()
    return max(computing, loading / hardware.workers)


def shared_memory_needed(run: Run, source: ImageSource) -> int:
    """Bytes of the batches that all loading processes of this machine hold ready, estimated from two images."""
    hardware, size = run.hardware, run.recipe.image_size
    if hardware.workers == 0:
        return 0
    feed = feed_for(source, run.recipe.views, size, run.seed, hardware)
    keys = [(0, 0), (0, len(source) // 2)]
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    nested_map(note, feed.load(Wanted(keys, 0, size), []))
    images = run.recipe.batch_size // hardware.processes * here().local_count
    return hardware.workers * BATCHES_AHEAD * images * sum(sizes) // len(keys)


def _loading_seconds(run: Run, source: ImageSource) -> float:
    """Seconds that a loading process takes per image, measured on a few images."""
    size = run.recipe.image_size
    feed = feed_for(source, run.recipe.views, size, run.seed, run.hardware)
    count = min(32, len(source))
    keys = [(0, position * len(source) // count) for position in range(count)]
    feed.load(Wanted(keys[:2], 0, size), [])
    started = time.perf_counter()
    feed.load(Wanted(keys, 0, size), [])
    return (time.perf_counter() - started) / count
