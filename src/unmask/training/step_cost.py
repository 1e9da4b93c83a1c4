"""What a training step costs (FLOPs, time, memory), and how fast the machine could be."""

import mmap
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unmask.contracts import Size, StepReport
from unmask.errors import ResourceError
from unmask.randomness import generator
from unmask.training.hardware import Precision, autocast, dtype_of, seconds_of
from unmask.training.step_memory import (
    Example,
    hollow,
    peak_bytes,
    per_image,
    saved_bytes,
    untouched,
)
from unmask.traits import Growing, Recomputing

_CEILING_SECONDS = 0.2
_COPIED_BYTES = 256 * 2**20  # larger than the caches of CPUs and GPUs
_USUAL_LOAD = 0.5  # of a step whose cost grows with what its module has learned
_NOISE = 64 * 2**20  # bytes by which a peak that has just been forgotten lies above the present
_FEWEST = 4  # images of the larger trial
_LONG_ENOUGH = 0.7  # seconds of a trial, so that timing noise does not matter


class Cost(NamedTuple):
    """Time and memory of training on this machine."""

    seconds_per_image: float
    seconds_per_micro_batch: float
    seconds_per_update: float
    bytes_per_image: int
    bytes_fixed: int
    bytes_process: int
    """Memory of the process itself: before any weights, and what kernels and the allocator took besides tensors; 0 on a GPU."""

    def step_seconds(self, batch_size: int, micro_batch: int) -> float:
        """Time of a step without loading."""
        passes = -(-batch_size // micro_batch)
        return (
            self.seconds_per_image * batch_size
            + self.seconds_per_micro_batch * passes
            + self.seconds_per_update
        )

    def memory(self, micro_batch: int) -> int:
        """Bytes of weights, gradients, optimizer and activations."""
        return self.bytes_fixed + self.bytes_per_image * micro_batch


def measure_cost(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    example: Example,
    largest: int,
    device: torch.device,
    precision: Precision,
    room: int,
) -> Cost:
    """Measure the memory of a step, and time forward and backward passes of two batch sizes and an update with rate 0.

    `largest` and the `room` in bytes, besides weights, gradients and optimizer, limit the number of images. The module is
    not changed, and the optimizer's state is cleared.

    Raises:
        ResourceError: if what one image keeps does not fit into the room; before anything is kept.
    """

    def seconds(count: int) -> float:
        batch = example(count)

        def forward_backward() -> None:
            with autocast(device, precision):
                module(batch, generator(device, "cost", count)).total.backward()

        return _seconds(forward_backward, device)

    weights = sum(p.nbytes for p in module.parameters())
    gradients = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    resident = _resident()
    with _loaded(module, 1.0):
        saved = saved_bytes(module, example, device, precision)
        check_room(saved, room)
        bytes_per_image = peak_bytes(module, example, device, precision, saved, room)
    largest = max(1, min(largest, room // max(1, bytes_per_image)))
    forget_peak(device)
    is_forgotten = device.type == "cpu" and peak_memory(device) <= _resident() + _NOISE
    with untouched(module), _loaded(module, _USUAL_LOAD):
        one_image = seconds(1)
        images, all_images = 1, one_image
        while images < largest and (images < _FEWEST or all_images < _LONG_ENOUGH):
            images = min(2 * images, largest)
            all_images = seconds(images)
        if images > 1:
            one_image = seconds(1)  # again, because the first timing includes warming up
            per_image = max((all_images - one_image) / (images - 1), all_images / images / 2)
        else:
            per_image = all_images
        if isinstance(module, Growing):
            with _loaded(module, 1.0):
                seconds(
                    images
                )  # so that the peak is that of the largest step, as `bytes_per_image` is
        tensors = resident + bytes_per_image * images + gradients
        besides = max(0, peak_memory(device) - tensors) if is_forgotten else 0
        for parameter in module.parameters():
            if (
                parameter.grad is not None
            ):  # in float16 it may be infinite, and 0 times infinity is not 0
                parameter.grad.zero_()
        update = _seconds(optimizer.step, device)
        state = sum(t.nbytes for s in optimizer.state.values() for t in s.values())
        optimizer.state.clear()
    return Cost(
        seconds_per_image=per_image,
        seconds_per_micro_batch=max(0.0, all_images - per_image * images),
        seconds_per_update=update,
        bytes_per_image=bytes_per_image,
        bytes_fixed=weights + gradients + state,
        bytes_process=max(0, resident - weights) + besides if device.type == "cpu" else 0,
    )


def check_room(needed: int, room: int) -> None:
    """Refuse a step whose memory for one image at a time does not fit.

    Raises:
        ResourceError: with both numbers and a remedy.
    """
    if needed > room:
        raise ResourceError(
            f"one image at a time needs {gib(needed)}, but only {gib(room)} are free besides weights, gradients and "
            "optimizer; choose a smaller recipe with --recipe or a smaller --image-size"
        )


def gib(number: float) -> str:
    """Bytes in words."""
    return f"{max(0.0, number) / 2**30:.1f} GiB"


@contextmanager
def _loaded(module: nn.Module, load: float) -> Generator[None]:
    """A context in which a step takes this share of what it can take at most, if that depends on weights; see `Growing`."""
    if not isinstance(module, Growing):
        yield
        return
    module.load = load
    try:
        yield
    finally:
        module.load = None


def _resident() -> int:
    """Resident memory of this process in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return 0
    return pages * mmap.PAGESIZE


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The faster of two runs, after one for warming up."""
    return min([seconds_of(work, device) for _ in range(3)][1:])


def flops_per_image(
    trainable: nn.Module, example: Example, device: torch.device, precision: Precision
) -> int:
    """FLOPs of matrix products in a forward and backward pass, by torch's counter.

    Recomputation and work per batch are not counted. The module must not be compiled yet; it is not changed. Its activations
    are not kept, so that this fits in memory wherever a step does.
    """

    from torch.utils.flop_counter import FlopCounterMode

    def count(images: int) -> int:
        batch = example(images)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), hollow():
            with autocast(device, precision):
                loss = trainable(batch, generator(device, "flops", images))
            loss.total.backward()
        return counter.get_total_flops()

    keeping = _recomputing(trainable, False)
    try:
        return per_image(trainable, count)
    finally:
        _recomputing(trainable, keeping)


def _recomputing(module: nn.Module, value: bool) -> bool:
    """Set whether a module that can computes activations again; returns what it did before."""
    before = isinstance(module, Recomputing) and module.saves_memory
    if isinstance(module, Recomputing):
        module.saves_memory = value
    return before


class Meter(NamedTuple):
    """Computes speed and utilisation for the log."""

    device: torch.device
    flops_per_image: dict[Size, int]
    """FLOPs by crop size; for other sizes they are assumed proportional to the number of pixels."""
    ceiling: float
    """FLOP/s of plain matrix products on this device."""

    def figures(self, reports: list[StepReport], seconds: float) -> dict[str, float]:
        """Speed, utilisation, share of time spent waiting for data, and memory, for steps that took this time."""
        seconds = max(seconds, 1e-9)
        rate = sum(report.images for report in reports) / seconds
        flops = sum(report.images * self._flops(report.size) for report in reports) / seconds
        return {
            "images_per_second": round(rate, 2),
            "waiting": round(sum(report.waiting_seconds for report in reports) / seconds, 4),
            "flops_per_second": round(flops),
            "mfu": round(flops / self.ceiling, 4),
            "peak_memory": peak_memory(self.device),
        }

    def _flops(self, size: Size) -> float:
        if size in self.flops_per_image:
            return self.flops_per_image[size]
        known = max(self.flops_per_image)
        pixels = size.height * size.width
        return self.flops_per_image[known] * pixels / (known.height * known.width)


def matrix_ceiling(device: torch.device, precision: Precision) -> float:
    """FLOP/s of a large square matrix product, the best within 0.2 seconds."""
    side = 4096 if precision == "float32" else 8192
    if device.type == "cpu":
        side = 256 if precision == "float16" else 1024  # most CPUs emulate float16
    # Random values: with constants, a GPU needs less power and runs faster.
    noise = generator(device, "ceiling")
    left = torch.randn(side, side, device=device, generator=noise).to(dtype_of(precision))
    return 2 * side**3 / _best_seconds(lambda: left @ left, device)


@cache
def first_ceiling(device: torch.device, precision: Precision, threads: int) -> float:
    """`matrix_ceiling`, measured once per process, so that many short trainings do not repeat it."""
    assert threads == torch.get_num_threads()
    return matrix_ceiling(device, precision)


def copy_ceiling(device: torch.device) -> float:
    """Bytes per second read and written by a copy within the device's memory."""
    source = torch.ones(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """The shortest time of all runs within 0.2 seconds, at least two."""
    times: list[float] = []
    first = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - first < _CEILING_SECONDS:
        times.append(seconds_of(work, device))
    return min(times)


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: on the device, or of this process for a CPU; 0 if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # some sandboxes leave the line out
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak(device: torch.device) -> None:
    """Reset `peak_memory`, if the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
