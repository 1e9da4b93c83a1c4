"""Several processes that train one model: torchrun's environment, gradients, and shared decisions.

Every process has the whole model (DDP) or a shard of it (FSDP2), and its own rows of every batch. Decisions for all processes,
such as stopping and saving, are exchanged after every step with gloo, on the CPU. So no process waits alone in a collective,
and when one process ends, the others notice it at their next step.
"""

import os
import socket
import sys
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from unmask.errors import ResourceError, SettingsError
from unmask.traits import Entered, Joining

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

PATIENCE = timedelta(minutes=10)
"""How long a process waits for one that does not respond; a process that ended is noticed at once."""

_PREPARING = timedelta(hours=12)
"""How long the other processes wait while the first one scans the images and measures the cost of a step."""

_GLOO = "/gloo/transport/"
"""In every message of gloo's connections, which have no error class of their own: the place in its source."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The rank of this process and the number of processes."""

    rank: int = 0
    """Rank over all machines, from 0."""

    count: int = 1
    """Number of processes on all machines."""

    local_rank: int = 0
    """Rank on this machine, from 0."""

    local_count: int = 1
    """Number of processes on this machine."""

    restarts: int = 0
    """How often torchrun has restarted the command after a failure."""

    @property
    def first(self) -> bool:
        """Whether this is the process that prints, logs and saves."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """The name of this process in messages."""
        return f"process {self.rank} of {self.count} (on {socket.gethostname()})"


def launched() -> Processes:
    """The processes according to torchrun's environment; a single process without torchrun."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name, "") for name in names]
    if "MASTER_ADDR" not in os.environ or not all(values):
        return Processes()
    for name, value in zip(names, values, strict=True):
        if not value.isdecimal():
            raise SettingsError(
                f"the environment variable {name} must be a number, as torchrun sets it, got {value!r}; start several "
                "processes with torchrun, or unset it"
            )
    rank, count, local_rank, local_count = map(int, values)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Processes(
        rank=rank,
        count=count,
        local_rank=local_rank,
        local_count=local_count,
        restarts=restarts,
    )


def slurm_tasks() -> int:
    """Tasks of this job according to Slurm; 0 in all of them but the first, and without Slurm."""
    tasks = os.environ.get("SLURM_NTASKS", "")
    is_first = os.environ.get("SLURM_PROCID", "0") == "0"
    return int(tasks) if tasks.isdecimal() and is_first else 0


def here() -> Processes:
    """This process among those that have joined; a single process before `joined`."""
    return launched() if dist.is_available() and dist.is_initialized() else Processes()


@contextmanager
def joined() -> Generator[dist.ProcessGroup | None]:
    """Connect to the other processes that torchrun has started, and disconnect at the end.

    The device "cuda" of each process is the GPU of its local rank. Yields a process group with a long timeout, for
    preparations; None for a single process.
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
    with warnings.catch_warnings():  # harmless for the class token, whose gradient is a slice
        warnings.filterwarnings("ignore", "Grad strides do not match")
        yield waiting
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone


def check_device(device: torch.device) -> None:
    """Refuse a device that the processes of this machine cannot share.

    Raises:
        SettingsError: if the device names one GPU.
        ResourceError: if there are fewer GPUs than processes.
    """
    processes = here()
    if processes.count == 1 or device.type != "cuda":
        return
    if ":" in str(device):
        raise SettingsError(
            f"--device {device} would put all processes on one GPU; leave out --device, then each process uses its own"
        )
    if processes.local_count > torch.cuda.device_count():
        raise ResourceError(
            f"this machine has {processes.local_count} processes and only {torch.cuda.device_count()} GPUs; "
            f"start torchrun with --nproc-per-node {torch.cuda.device_count()}"
        )


def check_batch(batch_size: int, paired: bool) -> None:
    """Refuse a batch that the processes cannot share in equal parts; with `paired` images, in parts of whole pairs.

    Raises:
        SettingsError: with the nearest batch sizes and the numbers of processes that work.
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
        f"a batch of {batch_size} images cannot be shared equally by {count} processes{pairs}; use "
        f"--batch-size {near} (the learning rate is scaled with it), or a number of processes that divides it: "
        f"{', '.join(map(str, fits)) or 'one'}"
    )


def spread(module: nn.Module, device: torch.device, shard: bool) -> nn.Module:
    """The module as the training loop calls it; with several processes, wrapped so that gradients are averaged.

    All processes start with the same weights. Buffers are not broadcast at every step: a module with running statistics
    reduces them itself. With `shard`, each process keeps its shard of every parameter on the device, and blocks are gathered
    one after the other while they compute.
    """
    if here().count == 1:
        return _sharded(module, device) if shard else module
    for part in module.modules():
        if isinstance(part, Joining):
            part.join()
    if shard:
        return _sharded(module, device)
    with warnings.catch_warnings():  # torch 2.15 renames broadcast_buffers to forward_sync_buffers
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def _sharded(module: nn.Module, device: torch.device) -> nn.Module:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (here().count,))
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    for block in (block for blocks in lists for block in blocks):
        fully_shard(block, mesh=mesh)
        for name in block.entrances if isinstance(block, Entered) else ():
            register_fsdp_forward_method(block, name)
    fully_shard(module, mesh=mesh)
    return module


def _is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is sharded; the class takes a second to import, and where nobody has done so, no tensor is."""
    imported = sys.modules.get("torch.distributed.tensor")
    return imported is not None and isinstance(tensor, imported.DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor; the whole tensor if it is not sharded."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def own_parts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that this process saves: its shards; the first process also saves the tensors that are not sharded."""
    first = here().first
    return {n: own_part(t) for n, t in tensors.items() if first or _is_sharded(t)}


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full tensors, for the first process; all processes must call it, and the others get an empty dictionary.

    Sharded tensors are gathered one at a time and moved to the CPU, so that a GPU never holds the whole model.
    """
    full_tensors: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if _is_sharded(tensor) else tensor
        if here().first:
            full_tensors[name] = full.cpu() if _is_sharded(tensor) else full
    return full_tensors


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A full tensor sharded like its parameter; the tensor itself if the parameter is not sharded."""
    if not _is_sharded(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(tensor.to(mesh.device_type), mesh, placements, src_data_rank=None)


def plain(module: Any) -> Any:
    """The module without the wrapper of `spread`."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def reducing(module: Any, *, when: bool) -> AbstractContextManager[object]:
    """A context for the backward pass of a micro-batch: gradients are averaged over processes only `when` it is the last."""
    if isinstance(module, DistributedDataParallel) and not when:
        return module.no_sync()
    sharding = sys.modules.get("torch.distributed.fsdp")  # as in `_is_sharded`
    if sharding is not None and isinstance(module, sharding.FSDPModule):
        cast(Any, module).set_requires_gradient_sync(when)
    return nullcontext()


def agreed(*votes: bool) -> list[bool]:
    """For each vote, whether any process votes yes; all processes must call it."""
    if here().count == 1:
        return list(votes)
    any_yes = torch.tensor(votes, dtype=torch.int32)
    dist.all_reduce(any_yes, dist.ReduceOp.MAX)
    return [bool(vote) for vote in any_yes.tolist()]


def mean(values: Tensor) -> Tensor:
    """The mean over all processes; all processes must call it."""
    return total(values) / here().count if here().count > 1 else values


def total(values: Tensor) -> Tensor:
    """The sum over all processes; all processes must call it."""
    if here().count > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def everyones(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The values of all processes (plain Python objects), by rank; all processes must call it. The group sets the timeout."""
    if here().count == 1:
        return [value]
    values: list[Any] = [None] * here().count
    dist.all_gather_object(values, value, group=group)
    return values


def firsts(value: Any, group: dist.ProcessGroup | None) -> Any:
    """The first process's value (a plain Python object); all processes must call it. The group sets the timeout."""
    if group is None:
        return value
    values = [value]
    dist.broadcast_object_list(values, group=group)
    return values[0]


def lost(error: RuntimeError) -> bool:
    """Whether an error means that another process is gone or silent."""
    broken = isinstance(error, dist.DistError) or _GLOO in str(error)
    return broken and here().count > 1
