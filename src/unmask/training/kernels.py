"""What a GPU is told beside the mathematics: what to compile, and which attention kernel to take.

A CPU computes everything as it is written.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from unmask.attention import PREFERRED, AttentionShape
from unmask.contracts import Batch, Reports, StepReport
from unmask.randomness import generator
from unmask.training.hardware import Precision, autocast, wait_for
from unmask.training.untouched import untouched
from unmask.traits import Fused

_WORTH_COMPILING = 500
"""Steps of a run; compiling takes about a minute."""

_VARIANTS = 64
_REPEATS = 5
_AHEAD = 8
"""Large products before a timing, so that launching is ahead of the GPU as it is in training."""

FUSED = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
)
"""The kernels to choose from, fastest first on most GPUs."""

Preference = dict[AttentionShape, list[SDPBackend]]
"""Kernels at each shape, best first."""


def prepared(
    trainable: nn.Module,
    examples: Iterable[Callable[[int], Batch]],
    device: torch.device,
    precision: Precision,
    *,
    micro_batch: int,
    steps: int,
) -> Callable[[Reports], Reports]:
    """Make a module ready for a run of so many steps; what is returned goes around its reports.

    `examples` give batches of so many images on the device, one function for each size of crops.
    Whether to compile depends on the whole run's steps, so that a resumed run computes as before.
    """
    if device.type != "cuda":
        return lambda reports: reports
    shapes = Counter[AttentionShape]()
    for example in examples:
        shapes |= attention_shapes(trainable, example, device, precision)
    kernels = fastest_attention(shapes, micro_batch, device, precision)
    if steps >= _WORTH_COMPILING and can_compile(device):
        compile_parts(trainable)
    return lambda reports: preferring(kernels, reports)


def compile_parts(module: nn.Module, backend: str = "inductor") -> None:
    """Compile in place every Transformer block, and what modules call fused, for each shape anew.

    Blocks of a shape share code, so that this takes seconds where the whole as one graph takes a minute,
    for the same speed. Names of weights stay. No CUDA graphs: they would keep a second copy of what each
    part gives, and at the sizes that fill a GPU launching costs nothing.
    """
    # widths x tokens x images; the usual 8 is few
    torch._dynamo.config.recompile_limit = _VARIANTS  # pyright: ignore[reportPrivateUsage]
    for block in _blocks(module):
        block.compile(fullgraph=True, dynamic=False, backend=backend)
    for part in module.modules():
        for name in part.fused if isinstance(part, Fused) else ():
            method = torch.compile(
                getattr(part, name), fullgraph=True, dynamic=False, backend=backend
            )
            setattr(part, name, method)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for name, part in module.named_modules():
        if isinstance(part, nn.ModuleList) and name.rpartition(".")[2] == "blocks":
            yield from part


def can_compile(device: torch.device) -> bool:
    """Whether torch can compile for this device here: that takes Triton, a C compiler and a recent GPU."""
    try:
        compiled: Any = torch.compile(lambda x: x.sin() + 1, fullgraph=True)
        compiled(torch.ones(8, device=device))
    except Exception:  # torch wraps whatever is missing in errors of many kinds
        return False
    return True


class _Noting(TorchFunctionMode):
    """Counts the shapes of attention that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[AttentionShape] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key = args[0], args[1]
            shape = AttentionShape(query.shape[1], query.shape[2], key.shape[2], query.shape[3])
            self.seen[shape] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def attention_shapes(
    trainable: nn.Module,
    example: Callable[[int], Batch],
    device: torch.device,
    precision: Precision,
) -> Counter[AttentionShape]:
    """The shapes of attention in a forward pass, and how often each occurs. The module stays as it is."""
    with untouched(trainable), _Noting() as noting, autocast(device, precision):
        trainable(example(2), generator(device, "shapes"))
    return noting.seen


def fastest_attention(
    shapes: Iterable[AttentionShape], images: int, device: torch.device, precision: Precision
) -> Preference:
    """For each shape the fused kernels that can do it, the fastest first; plain attention is the last."""
    return {
        shape: [*_by_time(shape, images, device, precision), SDPBackend.MATH] for shape in shapes
    }


def _by_time(
    shape: AttentionShape, images: int, device: torch.device, precision: Precision
) -> list[SDPBackend]:
    spent: dict[SDPBackend, float] = {}
    for kernel in FUSED:
        # torch warns of, and then raises, what a kernel cannot do here or with such a shape
        with suppress(RuntimeError), warnings.catch_warnings(action="ignore"):
            spent[kernel] = attention_seconds(kernel, shape, images, device, precision)
    return sorted(spent, key=lambda kernel: spent[kernel])


def attention_seconds(
    kernel: SDPBackend,
    shape: AttentionShape,
    images: int,
    device: torch.device,
    precision: Precision,
) -> float:
    """Seconds of a forward and backward pass of one layer's attention with this kernel.

    On a GPU its own seconds: those of launching from here are hidden in training.

    Raises:
        RuntimeError: if the kernel cannot do it.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    # laid out as the model's: heads split off the last dimension
    sizes = (shape.queries, shape.keys, shape.keys)
    query, key, value = (
        torch.ones(
            images, tokens, shape.heads, shape.width, dtype=dtype, device=device
        ).requires_grad_()
        for tokens in sizes
    )

    def once() -> None:
        with sdpa_kernel(kernel):
            mixed = F.scaled_dot_product_attention(
                query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
            )
        torch.autograd.grad(mixed, (query, key, value), torch.ones_like(mixed))

    once()
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(_REPEATS):
            once()
        return (time.perf_counter() - started) / _REPEATS
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    square = torch.ones(8192, 8192, dtype=dtype, device=device)
    for _ in range(_AHEAD):
        torch.mm(square, square)
    began.record()
    for _ in range(_REPEATS):
        once()
    ended.record()
    wait_for(device)
    return began.elapsed_time(ended) / 1000 / _REPEATS


def preferring(kernels: Preference, reports: Reports) -> Iterator[StepReport]:
    """The same reports, each step taken with the first of its shape's kernels that can do it."""
    while True:
        with preferred(kernels):
            report = next(reports, None)
        if report is None:
            return
        yield report


@contextmanager
def preferred(kernels: Preference) -> Generator[None]:
    """Attention takes these kernels within; a compiled block keeps those that it was traced with."""
    before = dict(PREFERRED)
    PREFERRED.update(kernels)
    try:
        yield
    finally:
        PREFERRED.clear()
        PREFERRED.update(before)
