"""What a step costs: seconds and bytes, measured on the module itself before a run."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from unmask.contracts import Batch
from unmask.randomness import generator
from unmask.training.hardware import Precision, autocast, wait_for
from unmask.training.untouched import untouched

_FEWEST = 4
_LONG_ENOUGH = 0.7  # seconds of a trial


class Cost(NamedTuple):
    """What training costs on this machine."""

    seconds_per_image: float
    seconds_per_micro_batch: float
    seconds_per_update: float
    bytes_per_image: int
    bytes_fixed: int
    bytes_process: int
    """Memory of the process itself, before any weights; 0 on a GPU."""

    def step_seconds(self, batch_size: int, micro_batch: int) -> float:
        """Time of a step, loading not counted."""
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
    example: Callable[[int], Batch],
    largest: int,
    device: torch.device,
    precision: Precision,
) -> Cost:
    """Time forward and backward passes of two numbers of images, and an update with rate 0.

    `example` gives batches of so many images on the device. The module stays as it is, and the optimizer's state is
    cleared again. `largest` bounds the images of a trial.
    """
    with untouched(module):
        return _cost(module, optimizer, example, largest, device, precision)


def _cost(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    example: Callable[[int], Batch],
    largest: int,
    device: torch.device,
    precision: Precision,
) -> Cost:
    def seconds(count: int) -> float:
        batch = example(count)

        def both_ways() -> None:
            with autocast(device, precision):
                module(batch, generator(device, "cost", count)).total.backward()

        return _seconds(both_ways, device)

    weights = sum(p.nbytes for p in module.parameters())
    process = max(0, _resident() - weights) if device.type == "cpu" else 0
    alone = seconds(1)
    many, slow = 1, alone
    while many < largest and (many < _FEWEST or slow < _LONG_ENOUGH):
        many = min(2 * many, largest)
        slow = seconds(many)
    if many > 1:
        alone = seconds(1)
    per_image = max((slow - alone) / (many - 1), slow / many / 2) if many > 1 else slow
    update = _seconds(optimizer.step, device)
    state = sum(t.nbytes for s in optimizer.state.values() for t in s.values())
    optimizer.state.clear()
    learning = [p.nbytes for p in module.parameters() if p.requires_grad]
    return Cost(
        seconds_per_image=per_image,
        seconds_per_micro_batch=max(0.0, slow - per_image * many),
        seconds_per_update=update,
        bytes_per_image=saved_bytes(module, example, device, precision),
        bytes_fixed=weights + sum(learning) + state,
        bytes_process=process,
    )


def _resident() -> int:
    """Bytes of this process in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The faster of two runs after one that is not counted."""
    times: list[float] = []
    for _ in range(3):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def saved_bytes(
    trainable: nn.Module,
    example: Callable[[int], Batch],
    device: torch.device,
    precision: Precision,
) -> int:
    """Bytes that a forward pass keeps for the backward pass, per image; the module stays as it is.

    Storages are counted once, and the difference between two batch sizes leaves the weights out.
    """

    def kept(count: int) -> int:
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()  # an output that its own graph holds would never be freed

        batch = example(count)
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            autocast(device, precision),
        ):
            trainable(batch, generator(device, "memory", count))
        return sum(storages.values())

    with untouched(trainable):
        return (kept(3) - kept(1)) // 2
