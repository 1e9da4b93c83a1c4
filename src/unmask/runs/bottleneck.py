"""The results of `unmask bench`: the bottleneck of training, and advice."""

import math
from dataclasses import dataclass

from unmask.recipes import RECIPES
from unmask.training.logbook import LOADING_MATTERS

_STILL_RISING = 1.05  # gain in speed of the largest batch over the one before
_WELL_USED = 0.5  # share of peak speed
# gain of large products in bfloat16; below it, other operations cost more than that
_WORTH_BFLOAT16 = 2.0
_CHEAP = ("fast", "budget")  # beginnings of names of recipes made to need few FLOPs


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine and its peak speed."""

    device: str
    """Name of the device."""

    precision: str
    """Precision of matrix products."""

    threads: int
    """Number of CPU threads of torch."""

    cores: int
    """CPU cores that this process may use."""

    torch: str
    """Version of torch."""

    matrix_flops_per_second: float
    """Peak speed of large matrix products in this precision."""

    bfloat16_flops_per_second: float
    """The same in bfloat16; some CPUs have special units for it."""

    copy_bytes_per_second: float
    """Bytes read and written by copies within the device's memory."""


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """Speed of training steps without loading."""

    images: int
    """Images of a step, computed at one time (the micro-batch)."""

    steps: int
    """How many were timed."""

    median_seconds: float
    """Median time of a step: forward, backward and optimizer."""

    quartiles_seconds: tuple[float, float]
    """First and third quartile of the time of a step."""

    images_per_second: float
    """Images per second at the median time."""

    flops_per_second: float
    """FLOP/s by torch's counter."""

    mfu: float
    """Share of the peak speed of matrix products."""

    peak_memory: int
    """Peak memory in bytes: of the GPU, or of the whole process on a CPU."""


@dataclass(frozen=True, kw_only=True)
class LoaderSpeed:
    """Speed of loading alone: read, decode, crop, collate, copy to the device."""

    images_per_second: float
    """Images per second after the first batch."""

    workers: int
    """Number of loading processes."""

    images: int
    """How many were timed."""


@dataclass(frozen=True, kw_only=True)
class Together:
    """Speed of training with loading."""

    images_per_second: float
    """Images per second after the first step."""

    waiting: float
    """Share of a step spent waiting for images."""

    steps: int
    """How many were timed."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All measurements, the bottleneck and the advice."""

    recipe: str
    """Name of the recipe."""

    image_size: str
    """Size of a crop in pixels."""

    flops_per_image: int
    """FLOPs of the matrix products of forward and backward pass, by torch's counter."""

    machine: Machine
    """The machine."""

    steps: tuple[StepSpeed, ...]
    """Step speed by batch size."""

    stopped: str
    """Why no larger batch was tried."""

    loader: LoaderSpeed | None
    """Null if no images were given."""

    together: Together | None
    """Null if no images were given."""

    bottleneck: str
    """What limits the training speed."""

    advice: tuple[str, ...]
    """What would help, the most promising advice first."""

    @property
    def best(self) -> StepSpeed:
        """The fastest batch size."""
        return max(self.steps, key=lambda step: step.images_per_second)


def verdict(result: Bench, packed: bool) -> tuple[str, list[str]]:
    """The bottleneck and the advice; `packed` says that decoding costs almost nothing."""
    loader, together, step = result.loader, result.together, result.best
    if loader is None or together is None:
        words = "computing (add --data DATA to measure the loading of your images too)"
        return words, _compute(result)
    if together.waiting > LOADING_MATTERS:
        idle = "a larger recipe would cost little more, because the device waits"
        return (
            f"loading images: {together.waiting:.0%} of each step is spent waiting for them",
            [*_load(result, loader, packed), idle],
        )
    loads = max(1, loader.workers) / loader.images_per_second  # processor seconds of an image
    share = loads / (loads + result.machine.threads / step.images_per_second)
    if share > LOADING_MATTERS and result.machine.device == "cpu":
        return (
            f"computing, on the same cores as loading, which takes {share:.0%} of their time",
            _load(result, loader, packed) + _compute(result),
        )
    return "computing", _compute(result)


def _load(result: Bench, loader: LoaderSpeed, packed: bool) -> list[str]:
    machine, advice = result.machine, list[str]()
    each = loader.images_per_second / max(1, loader.workers)
    wanted = math.ceil(result.best.images_per_second / each)
    if machine.device == "cpu":
        if loader.workers == 0 and machine.cores > 1 and not packed:
            advice.append("--workers 1: one process loads while the other cores compute")
    elif loader.workers < min(wanted, machine.cores):
        advice.append(
            f"--workers {min(wanted, machine.cores)}: one process loads {each:,.0f} images/s here, and "
            f"the step takes {result.best.images_per_second:,.0f}"
        )
    if not packed:
        advice.append("`unmask pack DATA SHARDS` stores smaller images once, which decode faster")
    return advice


def _cheaper_alike(recipe: str) -> list[str]:
    """Recipes with fewer FLOPs for an encoder of the same shape and the same images; none for those of other files."""
    if recipe not in RECIPES or recipe.startswith(_CHEAP):
        return []
    own = RECIPES[recipe].recipe
    others = {name: one.recipe for name, one in RECIPES.items() if name.startswith(_CHEAP)}
    return [
        name
        for name, other in others.items()
        if other.image_size == own.image_size
        and other.encoder.fits(own.encoder)
        and type(other.objective) is type(own.objective)
    ]


def _compute(result: Bench) -> list[str]:
    machine, best, advice = result.machine, result.best, list[str]()
    gain = machine.bfloat16_flops_per_second / machine.matrix_flops_per_second
    if machine.precision == "float32" and gain > _WORTH_BFLOAT16:
        advice.append(
            f"--precision bfloat16: large matrix products are {gain:.1f} times as fast; measure whether those of "
            "this recipe are large enough"
        )
    if machine.device == "cpu" and machine.threads < machine.cores:
        advice.append(
            f"--threads {machine.cores}, if no other work needs the cores: {machine.threads} of them compute now"
        )
    speeds = [step.images_per_second for step in result.steps]
    if len(speeds) > 1 and speeds[-1] > _STILL_RISING * speeds[-2]:
        advice.append(
            f"--micro-batch {best.images} or more: the speed still rises with the images computed at a time"
        )
    if faster := _cheaper_alike(result.recipe):
        advice.append(f"a recipe with fewer FLOPs: --recipe {' or '.join(faster)}")
    advice.append("a smaller --image-size, a smaller recipe, or more hidden patches")
    if best.mfu < _WELL_USED:
        advice.append(
            f"{1 - best.mfu:.0%} of the peak speed is lost to small layers and memory traffic; wider "
            "models use more of it"
        )
    return advice
