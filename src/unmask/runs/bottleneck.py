"""What a measurement of a machine finds, and what follows: what holds training back, and what would help."""

import math
from dataclasses import dataclass

from unmask.recipes import RECIPES

WAITING_WORTH_MENDING = 0.1
_STILL_RISING = 1.05
_WELL_USED = 0.5
_WORTH_BFLOAT16 = 2.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured on, and how fast it is at best."""

    device: str
    """The device's own name."""

    precision: str
    """Of matrix products."""

    threads: int
    """CPU threads of torch."""

    cores: int
    """CPU cores that this process may use."""

    torch: str
    """Its version."""

    matrix_flops_per_second: float
    """Of large matrix products in this precision."""

    bfloat16_flops_per_second: float
    """The same in bfloat16, which some CPUs have units for."""

    copy_bytes_per_second: float
    """Read and written by copies within the device's memory."""


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """Training steps on random images that lie ready."""

    images: int
    """Of a step, computed at one time (the micro-batch)."""

    steps: int
    """How many were timed."""

    median_seconds: float
    """Of a step: forward, backward and optimizer."""

    quartiles_seconds: tuple[float, float]
    """The middle half of the steps lies between these."""

    images_per_second: float
    """At the median."""

    flops_per_second: float
    """By torch's counter."""

    mfu: float
    """Share of the ceiling of matrix products."""

    peak_memory: int
    """Bytes: on the device, or of the whole process where that is a CPU."""


@dataclass(frozen=True, kw_only=True)
class LoaderSpeed:
    """Loading alone: read, decode, crop, collate, copy to the device."""

    images_per_second: float
    """After the first batch."""

    workers: int
    """Loading processes."""

    images: int
    """How many were timed."""


@dataclass(frozen=True, kw_only=True)
class Together:
    """Training on the images."""

    images_per_second: float
    """After the first step."""

    waiting: float
    """Share of a step spent waiting for images."""

    steps: int
    """How many were timed."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that was measured, and what follows from it."""

    recipe: str
    """Its name."""

    image_size: str
    """Pixels of a crop."""

    flops_per_image: int
    """Matrix products of forward and backward pass, by torch's counter."""

    machine: Machine
    """What was measured on."""

    steps: tuple[StepSpeed, ...]
    """By batch size."""

    stopped: str
    """Why no larger batch was tried."""

    loader: LoaderSpeed | None
    """Null without images."""

    together: Together | None
    """Null without images."""

    bottleneck: str
    """What holds training back."""

    advice: tuple[str, ...]
    """What would help, the most promising first."""

    @property
    def best(self) -> StepSpeed:
        """The fastest batch size."""
        return max(self.steps, key=lambda step: step.images_per_second)


def verdict(found: Bench, packed: bool) -> tuple[str, list[str]]:
    """What holds training back, and what to do about it. `packed` says that decoding costs next to nothing."""
    loader, together, step = found.loader, found.together, found.best
    if loader is None or together is None:
        return "computing (--data DATA measures the loading of your images too)", _compute(found)
    if together.waiting > WAITING_WORTH_MENDING:
        idle = "a larger recipe would cost little more, since the device waits"
        return (
            f"loading images: {together.waiting:.0%} of each step is spent waiting for them",
            [*_load(found, loader, packed), idle],
        )
    loads = max(1, loader.workers) / loader.images_per_second  # processor seconds of an image
    share = loads / (loads + found.machine.threads / step.images_per_second)
    if share > WAITING_WORTH_MENDING and found.machine.device == "cpu":
        return (
            f"computing, on cores that loading shares: it takes {share:.0%} of their time",
            _load(found, loader, packed) + _compute(found),
        )
    return "computing", _compute(found)


def _load(found: Bench, loader: LoaderSpeed, packed: bool) -> list[str]:
    machine, advice = found.machine, list[str]()
    each = loader.images_per_second / max(1, loader.workers)
    wanted = math.ceil(found.best.images_per_second / each)
    if machine.device == "cpu":
        if loader.workers == 0 and machine.cores > 1 and not packed:
            advice.append("--workers 1 loads while the other cores compute")
    elif loader.workers < min(wanted, machine.cores):
        advice.append(
            f"--workers {min(wanted, machine.cores)}: one process loads {each:,.0f} images/s here, and "
            f"the step takes {found.best.images_per_second:,.0f}"
        )
    if not packed:
        advice.append(
            "unmask pack DATA SHARDS stores the images small, once; they then decode faster"
        )
    return advice


def _compute(found: Bench) -> list[str]:
    machine, best, advice = found.machine, found.best, list[str]()
    gain = machine.bfloat16_flops_per_second / machine.matrix_flops_per_second
    if machine.precision == "float32" and gain > _WORTH_BFLOAT16:
        advice.append(
            f"--precision bfloat16: large products are {gain:.1f} times as fast in it here; measure whether "
            "this recipe's are large enough"
        )
    if machine.device == "cpu" and machine.threads < machine.cores:
        advice.append(f"--threads {machine.cores}: {machine.threads} of them compute now")
    if _still_rising(found.steps):
        advice.append(
            f"--micro-batch {best.images} or more: the speed still rises with the images computed at a time"
        )
    quicker = [name for name in RECIPES if name.startswith(("fast", "budget"))]
    if quicker and not found.recipe.startswith(("fast", "budget")):
        advice.append(f"a recipe with less arithmetic: --recipe {' or '.join(quicker)}")
    advice.append("a smaller --image-size, a smaller recipe, or more hidden patches")
    if best.mfu < _WELL_USED:
        advice.append(
            f"{1 - best.mfu:.0%} of what matrix products could do goes to small layers and to memory; wider "
            "models use more"
        )
    return advice


def _still_rising(steps: tuple[StepSpeed, ...]) -> bool:
    if len(steps) < 2:
        return False
    return steps[-1].images_per_second > _STILL_RISING * steps[-2].images_per_second
