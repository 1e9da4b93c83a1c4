"""Hardware settings: where and how to compute. They change results only by rounding."""

import math
import mmap
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from unmask.device_names import device_name
from unmask.errors import ResourceError, SettingsError, first_line
from unmask.spec import within
from unmask.training.cgroups import cpu_limit, memory_left

Precision = Literal["float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_UNKNOWN = 2**50  # bytes: where a system does not say how much is free, nothing is refused


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The hardware settings of a run, with all automatic choices made."""

    device: str
    """Torch device: cpu, cuda, cuda:1, mps."""

    precision: Precision
    """Precision of matrix products; weights, optimizer and loss are always float32."""

    workers: int
    """Number of loading processes; 0 loads in the training process."""

    threads: int
    """Number of CPU threads of torch; on a CPU, results depend on it in the last bits."""

    micro_batch: int
    """Images computed at a time; a batch that does not fit in memory is divided into several of these."""

    recompute: bool = False
    """Whether activations of blocks are computed again in the backward pass instead of kept (activation checkpointing)."""

    processes: int = 1
    """Processes that share every batch, each with these workers, threads and micro-batches."""

    shard: bool = False
    """Whether the processes also share weights, gradients and optimizer state (FSDP2), so that larger models fit."""

    decode: Literal["cpu", "gpu"] = "cpu"
    """Where JPEGs are decoded and cropped: in the loading processes or on the GPU."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "workers")
        within(self, "[1, inf)", "threads", "micro_batch", "processes")
        if self.shard and self.processes == 1:
            raise SettingsError(
                "--shard divides a model among several processes, and there is only one; start it with `torchrun "
                "--nproc-per-node N -m unmask ...`, or leave out --shard"
            )


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU if there is one.

    Raises:
        SettingsError: for a word that is no device.
        ResourceError: if this machine does not have the device.
    """
    name = device_name(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        devices = ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
        raise ResourceError(
            f"--device {name} cannot be used here ({reason}); this machine has {', '.join(devices)}"
        ) from None
    return device


def out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out, on any device; other faults may speak of memory too."""
    # The allocators of CPUs and of MPS have no error class of their own, only these words.
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def best_precision(device: torch.device) -> Precision:
    """bfloat16 on GPUs that compute it natively, else float32. Most CPUs are far slower with bfloat16.

    Never float16, whose loss must be scaled: that is a user's choice.
    """
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether this is a GPU that computes bfloat16 natively."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def dtype_of(precision: Precision) -> torch.dtype:
    """The type of the factors of matrix products."""
    return _DTYPES[precision]


def best_workers(device: torch.device, in_memory: bool) -> int:
    """Number of loading processes: 0 for images in memory, 1 if training uses the CPU, else one per core up to 16."""
    if in_memory:
        return 0
    return 1 if device.type == "cpu" else min(16, cores())


def allowed_cores() -> set[int] | None:
    """The numbers of the cores that this process may run on; None on macOS and Windows, which do not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def cores() -> int:
    """Number of CPU cores that this process may use: those of its affinity, at most its quota of CPU time.

    A quota such as 1.5 gives 2: the second core works half of the time, and a single one would leave that half unused.
    """
    allowed = allowed_cores()
    count = (os.cpu_count() or 1) if allowed is None else len(allowed)
    quota = cpu_limit()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def limit_threads() -> None:
    """Let torch use at most the cores that this process may use; by itself, it does not know of quotas."""
    torch.set_num_threads(min(torch.get_num_threads(), cores()))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context that computes matrix products in this precision."""
    is_half = precision != "float32"
    dtype = (
        dtype_of(precision) if is_half else torch.bfloat16
    )  # torch checks it even if not enabled
    return torch.autocast(device.type, dtype, enabled=is_half)


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of some work, until the device has finished it."""
    wait_for(device)
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def memory_available(device: torch.device) -> int:
    """Bytes that can still be allocated: on the device, or for a CPU within the limits of machine, job and process."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept  # by torch, for the next tensors
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    limits = (_machine_available(), memory_left(), _address_space_left())
    return min((left for left in limits if left is not None), default=_UNKNOWN)


def shared_memory_free() -> int | None:
    """Free bytes of the shared memory through which loading processes hand over images; None if it has no limit."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return None


def _machine_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        pass
    try:  # macOS
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _address_space_left() -> int | None:
    """Bytes that `ulimit -v` leaves, with which some schedulers limit a job; None without such a limit."""
    try:
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    except (ImportError, OSError, ValueError, IndexError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - pages * mmap.PAGESIZE)
