"""GPU execution settings: compilation and the choice of attention kernels. A CPU uses neither."""

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
from unmask.contracts import Reports, StepReport
from unmask.randomness import generator
from unmask.training.hardware import Precision, autocast, dtype_of, wait_for
from unmask.training.step_cost import Example, untouched
from unmask.traits import Fused

_WORTH_COMPILING = 500
"""Least steps of a run to be compiled; compiling takes about a minute."""

_VARIANTS = 64  # shapes per block: widths x tokens x images; torch's default is 8
_REPEATS = 5
_AHEAD = 8
"""Large matrix products before a timing, so that kernel launches are ahead of the GPU, as in training."""

FUSED = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
)
"""The candidate kernels, fastest first on most GPUs."""

Preference = dict[AttentionShape, list[SDPBackend]]
"""Kernels for each shape, best first."""


def prepared(
    trainable: nn.Module,
    examples: Iterable[Example],
    device: torch.device,
    precision: Precision,
    *,
    micro_batch: int,
    steps: int,
) -> Callable[[Reports], Reports]:
    """Choose kernels and compile a module for a run; returns a wrapper for the iterator of its reports.

    `examples` has one for each crop size. Whether to compile depends on the steps of the whole run, so that a resumed run
    computes as before.
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
    """Compile every Transformer block, and the methods in `fused`, in place and separately for each shape.

    Blocks with the same shape share code, so this takes seconds, while the whole model as one graph takes a minute and
    is not faster. Names of weights do not change. CUDA graphs are not used: they keep a second copy of the outputs, and
    launch time does not matter at sizes that fill a GPU.
    """
    torch._dynamo.config.recompile_limit = _VARIANTS  # pyright: ignore[reportPrivateUsage]
    for path, part in module.named_modules():
        if isinstance(part, nn.ModuleList) and path.rpartition(".")[2] == "blocks":
            for block in part:
                block.compile(fullgraph=True, dynamic=False, backend=backend)
        for name in part.fused if isinstance(part, Fused) else ():
            method = torch.compile(
                getattr(part, name), fullgraph=True, dynamic=False, backend=backend
            )
            setattr(part, name, method)


def can_compile(device: torch.device) -> bool:
    """Whether torch can compile for this device: it needs Triton, a C compiler and a recent GPU."""
    try:
        compiled: Any = torch.compile(lambda x: x.sin() + 1, fullgraph=True)
        compiled(torch.ones(8, device=device))
    except Exception:  # torch raises errors of many types if something is missing
        return False
    return True


class _ShapeCounter(TorchFunctionMode):
    """Counts the shapes of attention calls."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[AttentionShape] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key = args[0], args[1]
            shape = AttentionShape(query.shape[1], query.shape[2], key.shape[2], query.shape[3])
            self.shapes[shape] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def attention_shapes(
    trainable: nn.Module, example: Example, device: torch.device, precision: Precision
) -> Counter[AttentionShape]:
    """The attention shapes of a forward pass, with their counts. The module is not changed."""
    quiet = torch.no_grad()  # nothing is kept for a backward pass
    with untouched(trainable), quiet, _ShapeCounter() as counter, autocast(device, precision):
        trainable(example(2), generator(device, "shapes"))
    return counter.shapes


def fastest_attention(
    shapes: Iterable[AttentionShape], images: int, device: torch.device, precision: Precision
) -> Preference:
    """For each shape the fused kernels that support it, fastest first, and plain attention last."""
    preference: Preference = {}
    for shape in shapes:
        seconds: dict[SDPBackend, float] = {}
        for kernel in FUSED:
            # torch warns and raises if a kernel does not support this device or shape
            with suppress(RuntimeError), warnings.catch_warnings(action="ignore"):
                seconds[kernel] = attention_seconds(kernel, shape, images, device, precision)
        preference[shape] = [*sorted(seconds, key=seconds.__getitem__), SDPBackend.MATH]
    return preference


def attention_seconds(
    kernel: SDPBackend,
    shape: AttentionShape,
    images: int,
    device: torch.device,
    precision: Precision,
) -> float:
    """Seconds of a forward and backward pass of one layer's attention with this kernel.

    On a GPU without launch time, which is hidden in training.

    Raises:
        RuntimeError: if the kernel does not support this shape or device.
    """
    dtype = dtype_of(precision)
    # the memory layout of the model: heads are split off the last dimension
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
    """The same reports; each step uses the preferred kernels."""
    while True:
        with preferred(kernels):
            report = next(reports, None)
        if report is None:
            return
        yield report


@contextmanager
def preferred(kernels: Preference) -> Generator[None]:
    """A context in which attention uses these kernels; a compiled block keeps those of its compilation."""
    before = dict(PREFERRED)
    PREFERRED.update(kernels)
    try:
        yield
    finally:
        PREFERRED.clear()
        PREFERRED.update(before)
