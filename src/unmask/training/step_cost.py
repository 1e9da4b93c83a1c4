"""Time and memory of a training step, measured on the module before a run."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from unmask.contracts import Batch
from unmask.randomness import generator
from unmask.training.hardware import Precision, autocast, seconds_of
from unmask.training.untouched import untouched

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
    """Memory of the process itself, before any weights; 0 on a GPU."""

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
    example: Callable[[int], Batch],
    largest: int,
    device: torch.device,
    precision: Precision,
) -> Cost:
    """Time forward and backward passes of two batch sizes, and an update with learning rate 0.

    `example` is a function from a number of images to a batch on the device; `largest` limits that number. The module is
    not changed, and the optimizer's state is cleared.
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

        def forward_backward() -> None:
            with autocast(device, precision):
                module(batch, generator(device, "cost", count)).total.backward()

        return _seconds(forward_backward, device)

    weights = sum(p.nbytes for p in module.parameters())
    process = max(0, _resident() - weights) if device.type == "cpu" else 0
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
    update = _seconds(optimizer.step, device)
    state = sum(t.nbytes for s in optimizer.state.values() for t in s.values())
    optimizer.state.clear()
    gradients = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    return Cost(
        seconds_per_image=per_image,
        seconds_per_micro_batch=max(0.0, all_images - per_image * images),
        seconds_per_update=update,
        bytes_per_image=saved_bytes(module, example, device, precision),
        bytes_fixed=weights + gradients + state,
        bytes_process=process,
    )


def _resident() -> int:
    """Resident memory of this process in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The faster of two runs, after one for warming up."""
    return min([seconds_of(work, device) for _ in range(3)][1:])


def saved_bytes(
    trainable: nn.Module,
    example: Callable[[int], Batch],
    device: torch.device,
    precision: Precision,
) -> int:
    """Bytes that a forward pass keeps for the backward pass, per image; the module is not changed.

    Each storage is counted once. The difference between two batch sizes excludes the weights.
    """

    def saved(count: int) -> int:
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()  # a graph that refers to its own output would never be freed

        batch = example(count)
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            autocast(device, precision),
        ):
            trainable(batch, generator(device, "memory", count))
        return sum(storages.values())

    with untouched(trainable):
        return (saved(3) - saved(1)) // 2
