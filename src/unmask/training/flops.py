"""FLOPs of a training step, and the speed limits of the machine."""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unmask.contracts import Batch, Size, StepReport
from unmask.randomness import generator
from unmask.training.hardware import Precision, autocast, seconds_of
from unmask.training.untouched import untouched

_CEILING_SECONDS = 0.2
_COPIED_BYTES = 256 * 2**20  # larger than the caches of CPUs and GPUs


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


def flops_per_image(
    trainable: nn.Module,
    example: Callable[[int], Batch],
    device: torch.device,
    precision: Precision,
) -> int:
    """FLOPs of matrix products in a forward and backward pass, by torch's counter.

    `example` is a function from a number of images to a batch on the device. Recomputation inside attention kernels and
    work per batch are not counted. The module must not be compiled yet; it is not changed.
    """

    def count(images: int) -> int:
        batch = example(images)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            with autocast(device, precision):
                loss = trainable(batch, generator(device, "flops", images))
            loss.total.backward()
        return counter.get_total_flops()

    with untouched(trainable):
        return (count(3) - count(1)) // 2


def matrix_ceiling(device: torch.device, precision: Precision) -> float:
    """FLOP/s of a large square matrix product, the best within 0.2 seconds."""
    side = 1024 if device.type == "cpu" else 8192 if precision == "bfloat16" else 4096
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    # Random values: with constants, a GPU needs less power and runs faster.
    noise = generator(device, "ceiling")
    left = torch.randn(side, side, device=device, generator=noise).to(dtype)
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
    """Peak memory in bytes: on the device, or of this process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def forget_peak(device: torch.device) -> None:
    """Reset `peak_memory`, if the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
