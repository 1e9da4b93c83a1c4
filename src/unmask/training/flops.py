"""How fast a machine is, and how much of that a training reaches."""

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
from unmask.training.hardware import Precision, autocast, wait_for
from unmask.training.untouched import untouched

_CEILING_SECONDS = 0.2
_COPIED_BYTES = 256 * 2**20


class Meter(NamedTuple):
    """What turns the time of steps into figures for the log."""

    device: torch.device
    flops_per_image: dict[Size, int]
    """By the size of a crop; of other sizes it is taken to grow with the number of pixels."""
    ceiling: float
    """FLOP/s of matrix products alone."""

    def figures(self, reports: list[StepReport], seconds: float) -> dict[str, float]:
        """Speed, use of the machine, share of waiting, and memory over steps that took this long together."""
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

    `example` gives batches of so many images on the device. What is recomputed inside attention kernels does not
    count, and neither does what is done once a batch. The module, which must not be compiled yet, stays as it is.
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
    """FLOP/s of a large square matrix product, the best of a fifth of a second."""
    side = 1024 if device.type == "cpu" else 8192 if precision == "bfloat16" else 4096
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    noise = generator(device, "ceiling")  # constants would switch fewer transistors, and run faster
    left = torch.randn(side, side, device=device, generator=noise).to(dtype)
    return 2 * side**3 / _best_seconds(lambda: left @ left, device)


@cache
def first_ceiling(device: torch.device, precision: Precision, threads: int) -> float:
    """`matrix_ceiling` as this process found it first, so that many short trainings measure it once."""
    assert threads == torch.get_num_threads()
    return matrix_ceiling(device, precision)


def copy_ceiling(device: torch.device) -> float:
    """Bytes read and written each second by a copy within the device's memory."""
    source = torch.ones(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _best_seconds(lambda: target.copy_(source), device)


def _best_seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """The shortest of as many runs as fit in a fifth of a second, at least two."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - began < _CEILING_SECONDS:
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return min(times)


def peak_memory(device: torch.device) -> int:
    """Most bytes taken so far: on the device, or by this process where that is a CPU."""
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
    """Let the next `peak_memory` be that of what follows, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
