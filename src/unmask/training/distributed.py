"""Several processes that train one model: torchrun's environment, gradients, and agreement.

Every process has a whole model (DDP), or a part of it (FSDP2), and its own rows of every batch. What concerns all, such as
stopping and saving, is agreed on after every step over gloo, on the CPU: so no process waits alone in a
collective, and the end of one is noticed by the others at their next step.
"""

import os
import socket
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from unmask.errors import ResourceError, SettingsError
from unmask.traits import Entered, Joining

PATIENCE = timedelta(minutes=10)
"""How long a process waits for one that is silent; one that ended is noticed at once."""

_PREPARING = timedelta(hours=12)
"""How long the others wait while the first looks at the images and measures what a step costs."""

_GLOO = "/gloo/transport/"
"""In every message of gloo's connections, which have no error class of their own: the place in its source."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which of how many processes this one is."""

    rank: int = 0
    """Its number, counted from 0 over all machines."""

    count: int = 1
    """How many there are in all."""

    local_rank: int = 0
    """Its number on this machine."""

    local_count: int = 1
    """How many there are on this machine."""

    restarts: int = 0
    """How often torchrun has begun the command anew after a failure."""

    @property
    def first(self) -> bool:
        """Whether it is the one that prints, logs and saves."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self.rank} of {self.count} (on {socket.gethostname()})"


def launched() -> Processes:
    """What torchrun's environment says; a process alone without it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "MASTER_ADDR" not in os.environ or not all(name in os.environ for name in names):
        return Processes()
    rank, count, local_rank, local_count = (int(os.environ[name]) for name in names)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Processes(
        rank=rank,
        count=count,
        local_rank=local_rank,
        local_count=local_count,
        restarts=restarts,
    )


def here() -> Processes:
    """This process among those that have joined; a process alone otherwise."""
    return launched() if dist.is_available() and dist.is_initialized() else Processes()


@contextmanager
def joined() -> Generator[dist.ProcessGroup | None]:
    """Meet the other processes that torchrun has started, and part from them at the end.

    Each has the GPU of its number as its "cuda". Gives a group to wait in for what takes long; None for one
    process alone.
    """
    processes = launched()
    if processes.count == 1:
        yield None
        return
    gpus = torch.cuda.device_count()
    if processes.local_rank < gpus:
        torch.cuda.set_device(processes.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    waiting = dist.new_group(backend="gloo", timeout=_PREPARING)
    assert isinstance(waiting, dist.ProcessGroup)  # this process is a member
    with warnings.catch_warnings():  # of the class token, whose gradient is a slice
        warnings.filterwarnings("ignore", "Grad strides do not match")
        yield waiting
    dist.destroy_process_group()  # not after an error: others may be gone


def check_device(device: torch.device) -> None:
    """Refuse a device that the processes of this machine cannot share.

    Raises:
        SettingsError: for one GPU by its number.
        ResourceError: for fewer GPUs than processes.
    """
    processes = here()
    if processes.count == 1 or device.type != "cuda":
        return
    if ":" in str(device):
        raise SettingsError(
            f"--device {device} would put all processes on one GPU; leave it out: each takes its own"
        )
    if processes.local_count > torch.cuda.device_count():
        raise ResourceError(
            f"{processes.local_count} processes on this machine, and {torch.cuda.device_count()} GPUs; "
            f"start it with --nproc-per-node {torch.cuda.device_count()}"
        )


def check_batch(batch_size: int, paired: bool) -> None:
    """Refuse a batch that the processes cannot share in equal parts, of whole pairs where images are mixed.

    Raises:
        SettingsError: naming the nearest batch sizes, and numbers of processes, that would do.
    """
    count = here().count
    unit = count * (2 if paired and count > 1 else 1)
    if batch_size % unit == 0:
        return
    below = batch_size // unit * unit
    near = " or ".join(str(size) for size in (below, below + unit) if size)
    fits = [n for n in range(1, count + 9) if batch_size % (n * (2 if paired else 1)) == 0]
    pairs = " and images are mixed in pairs" if paired else ""
    raise SettingsError(
        f"a batch of {batch_size} images cannot be shared equally by {count} processes{pairs}; take "
        f"--batch-size {near} (the learning rate goes with it), or as many processes as divide it: "
        f"{', '.join(map(str, fits)) or 'one'}"
    )


def spread(module: nn.Module, device: torch.device, shard: bool) -> nn.Module:
    """The module as the loop calls it: averaging gradients over all processes, if there are several.

    All begin with the same weights. Buffers are not copied at every step: whoever owns a running
    statistic reduces it. With `shard`, each process keeps its part of every parameter on the device, and the
    blocks are put together one after the other while they compute.
    """
    if here().count == 1:
        return _sharded(module, device) if shard else module
    for part in module.modules():
        if isinstance(part, Joining):
            part.join()
    if shard:
        return _sharded(module, device)
    with warnings.catch_warnings():  # the argument has another name from torch 2.15 on
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def _sharded(module: nn.Module, device: torch.device) -> nn.Module:
    mesh = init_device_mesh(device.type, (here().count,))
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    for block in (block for blocks in lists for block in blocks):
        fully_shard(block, mesh=mesh)
        for name in block.entrances if isinstance(block, Entered) else ():
            register_fsdp_forward_method(block, name)
    fully_shard(module, mesh=mesh)
    return module


def own_part(tensor: Tensor) -> Tensor:
    """What this process keeps of a tensor: all of it, if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_parts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What this process is to save of sharded tensors; of those that are not, the first saves all."""
    first = here().first
    return {n: own_part(t) for n, t in tensors.items() if first or isinstance(t, DTensor)}


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors put together, for the first process; all must call it, and the others get none.

    One at a time, on the CPU if they are sharded.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if here().first:
            found[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return found


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as its parameter is kept: this process's part of it, where that is sharded."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(tensor.to(mesh.device_type), mesh, placements, src_data_rank=None)


def plain(module: Any) -> Any:
    """The module that `spread` was given."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def reducing(module: Any, *, when: bool) -> AbstractContextManager[object]:
    """Within it, gradients are averaged over the processes, or (before the last micro-batch) only kept."""
    if isinstance(module, DistributedDataParallel) and not when:
        return module.no_sync()
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(when)
    return nullcontext()


def agreed(*votes: bool) -> list[bool]:
    """Which of these any process wants; all must ask."""
    if here().count == 1:
        return list(votes)
    counted = torch.tensor(votes, dtype=torch.int32)
    dist.all_reduce(counted, dist.ReduceOp.MAX)
    return [bool(vote) for vote in counted.tolist()]


def mean(values: Tensor) -> Tensor:
    """The mean over all processes; all must ask."""
    return total(values) / here().count if here().count > 1 else values


def total(values: Tensor) -> Tensor:
    """The sum over all processes; all must ask."""
    if here().count > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def everyones(value: Any) -> list[Any]:
    """The plain value of every process, by rank; all must ask."""
    if here().count == 1:
        return [value]
    found: list[Any] = [None] * here().count
    dist.all_gather_object(found, value)
    return found


def firsts(value: Any, group: dist.ProcessGroup | None) -> Any:
    """The plain value of the first process, waited for in a group of all; all must ask."""
    if group is None:
        return value
    found = [value]
    dist.broadcast_object_list(found, group=group)
    return found[0]


def lost(error: RuntimeError) -> bool:
    """Whether an error means that another process is gone or silent."""
    broken = isinstance(error, dist.DistError) or _GLOO in str(error)
    return broken and here().count > 1
