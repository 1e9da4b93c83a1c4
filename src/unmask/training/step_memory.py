"""How much memory a training step takes for each image, measured without filling the memory first."""

import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unmask.contracts import Batch
from unmask.randomness import generator
from unmask.training.hardware import Precision, autocast

Example = Callable[[int], Batch]
"""A function from a number of images to a batch with so many images, on the device of the module."""


def saved_bytes(
    trainable: nn.Module, example: Example, device: torch.device, precision: Precision
) -> int:
    """Bytes that a forward pass keeps for the backward pass, per image; the module is not changed.

    Each storage is counted once. Nothing is kept while it is counted, so that more can be measured than there is memory for.
    """

    def saved(count: int) -> int:
        # A weak reference keeps the address of a storage that is gone from being used again.
        storages: dict[int, tuple[StorageWeakRef, int]] = {}

        def note(tensor: Tensor) -> None:
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
            storages[reference.cdata] = reference, storage.nbytes()

        batch = example(count)
        with (
            torch.autograd.graph.saved_tensors_hooks(note, _gone),
            autocast(device, precision),
        ):
            trainable(batch, generator(device, "memory", count))
        return sum(size for _, size in storages.values())

    return per_image(trainable, saved)


def _gone(_: object) -> Tensor:
    raise AssertionError("there is no backward pass")


def peak_bytes(
    trainable: nn.Module,
    example: Example,
    device: torch.device,
    precision: Precision,
    saved: int,
    room: int,
) -> int:
    """Bytes that a forward and backward pass takes at its peak, per image, besides weights and gradients.

    So it has what `saved_bytes`, given as `saved`, leaves out: gradients of activations, and what is computed again. The
    module is not changed. If three images would not fit into `room` bytes, one is measured, and work per batch counts as its
    own.
    """

    def peak(count: int) -> int:
        batch = example(count)

        def step() -> None:
            with autocast(device, precision):
                loss = trainable(batch, generator(device, "memory", count))
            loss.total.backward()

        for parameter in trainable.parameters():
            parameter.grad = None
        return peak_of(step, device)

    if 2 * 3 * saved < room:  # gradients of activations take as much again at most
        return max(saved, per_image(trainable, peak))
    gradients = sum(p.nbytes for p in trainable.parameters() if p.requires_grad)
    with untouched(trainable):
        return max(saved, peak(1) - gradients)


@contextmanager
def hollow() -> Generator[None]:
    """A context in which a forward pass keeps shapes in place of values, and a backward pass computes with zeros.

    Numbers that are not floats, such as places in a tensor, are kept, because later shapes may depend on them.
    """

    def shape(tensor: Tensor) -> Any:
        return (
            tensor.detach()
            if not tensor.is_floating_point()
            else partial(torch.zeros, tensor.shape, dtype=tensor.dtype, device=tensor.device)
        )

    def zeros(kept: Any) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept()

    with torch.autograd.graph.saved_tensors_hooks(shape, zeros):
        yield


def peak_of(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that were made during some work and existed at one time."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with _Living() as living:
        work()
    return living.most


class _Living(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, until they are freed; buffers within a kernel do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        old = {
            StorageWeakRef(leaf.untyped_storage()).cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage(), old)
        return result

    def _note(self, storage: torch.UntypedStorage, old: set[int]) -> None:
        """Count a storage, unless it was there before."""
        address = StorageWeakRef(storage).cdata
        if address in old or address in self._known:
            return
        self._known.add(address)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, address, storage.nbytes())

    def _freed(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


def per_image(module: nn.Module, measured: Callable[[int], int]) -> int:
    """The share of one image: the difference between two batch sizes excludes weights and work per batch."""
    with untouched(module):
        return (measured(3) - measured(1)) // 2


@contextmanager
def untouched(module: nn.Module) -> Generator[None]:
    """A context that restores the module's buffers at its end and removes gradients."""
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(buffers[name])
        for parameter in module.parameters():
            parameter.grad = None
