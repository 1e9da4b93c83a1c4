"""Hardware settings of a command: choose what the flags leave open, and print what changed."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from unmask.console.output import console, notes
from unmask.contracts import ImageSource
from unmask.data.gpu_decode import check_decoding
from unmask.data.multi_views import AnyPretrainingViews
from unmask.data.views import AnyViews
from unmask.errors import ResourceError, SettingsError
from unmask.runs.plan import check_parts, fitting_micro_batch, trial
from unmask.runs.run import USUAL_SET_ASIDE, Run
from unmask.spec import within
from unmask.training.distributed import check_device, here
from unmask.training.free_cores import free_cores
from unmask.training.hardware import (
    Hardware,
    best_precision,
    best_workers,
    cores,
    find_device,
    out_of_memory,
)
from unmask.training.step_cost import Cost
from unmask.traits import Recomputing

Threads = Annotated[
    int | None,
    tyro.conf.arg(help="CPU threads of torch; as many as there are free cores if not given."),
]
"""The flag --threads of every command that computes; given to `use_threads`, or as a part of `MachineFlags`."""


@dataclass(frozen=True, kw_only=True)
class MachineFlags:
    """Flags that say how to compute."""

    workers: int | None = None
    """Processes that load images; chosen for the machine if not given."""

    threads: Threads = None
    """CPU threads of torch."""

    device: str = "auto"
    """cpu, cuda (or gpu), cuda:1, mps, or auto."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of matrix products; weights are always float32. float16 scales the loss, for GPUs without bfloat16."""

    micro_batch: int | None = None
    """Images computed at a time; chosen by a measurement if not given."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "workers")
        within(self, "[1, inf)", "threads", "micro_batch")


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The flags of a training command that do not change the result."""

    machine: Annotated[MachineFlags, tyro.conf.arg(name="")] = MachineFlags()
    """How to compute."""

    shard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Split weights, gradients and optimizer over the processes that torchrun started (FSDP2)."""

    decode: Literal["cpu", "gpu"] = "cpu"
    """Where JPEGs are decoded and cropped: in the loading processes (cpu) or on the GPU (nvJPEG)."""

    save_every_minutes: float = 10.0
    """Time between checkpoints; 0 saves after every step."""

    max_set_aside: float = USUAL_SET_ASIDE
    """Share of images that may be unusable before the run stops with an error."""

    no_report: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Do not write report.html into the folder of the run."""

    track: str | None = None
    """Trackers that get the log too: tensorboard, mlflow, trackio, wandb, or several with commas. They write into
    the folder of the run. To go on with --resume, give them again."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "save_every_minutes")
        within(self, "[0, 1]", "max_set_aside", usual="0.05 is 5 %")


def flags_of(run: Run) -> RunFlags:
    """The flags that give the hardware settings of a run."""
    hardware = run.hardware
    return RunFlags(
        machine=MachineFlags(
            workers=hardware.workers,
            threads=hardware.threads,
            device=hardware.device,
            precision=hardware.precision,
            micro_batch=hardware.micro_batch,
        ),
        shard=hardware.shard,
        decode=hardware.decode,
        save_every_minutes=run.save_every_minutes,
        max_set_aside=run.max_set_aside,
    )


def use_threads(wanted: int | None) -> int:
    """Set torch's number of threads: the wanted one, or one for each core that is free now; says if these are not all.

    Processes that torchrun started share all cores, since they are busy with one another's work.
    """
    threads = wanted or _free_threads()
    torch.set_num_threads(threads)
    return threads


def _free_threads() -> int:
    every, sharing = cores(), here().local_count
    if sharing > 1:
        return max(1, every // sharing)
    free = free_cores()
    if free < every:
        notes.note_later(f"{_busy(every, free)}, so torch uses {free}; --threads {every} uses all")
    return free


def _busy(every: int, free: int) -> str:
    return f"other work leaves {free} of {every} cores free"


def hardware_of(
    args: MachineFlags,
    *,
    in_memory: bool,
    batch_size: int,
    shard: bool = False,
    decode: Literal["cpu", "gpu"] = "cpu",
) -> Hardware:
    """The hardware settings from the flags and the machine; also sets the number of torch's threads.

    Raises:
        SettingsError: for a number of threads below 1.
        ResourceError: for a device that this machine lacks.
    """
    device, processes = find_device(args.device), here()
    check_device(device)
    threads = use_threads(args.threads)
    return Hardware(
        device=str(device),
        precision=best_precision(device) if args.precision == "auto" else args.precision,
        workers=best_workers(device, in_memory) if args.workers is None else args.workers,
        threads=threads,
        micro_batch=args.micro_batch or batch_size // processes.count,
        processes=processes.count,
        shard=shard,
        decode=decode,
    )


def check_decode(
    hardware: Hardware, source: ImageSource, views: AnyPretrainingViews | AnyViews
) -> None:
    """Check that the GPU can decode these images, if `--decode gpu` asks for it.

    Raises:
        SettingsError: if the images or views are of a kind that it cannot handle.
        ResourceError: if there is no GPU, or torchcodec cannot use it.
    """
    if hardware.decode == "gpu":
        check_decoding(source, views, torch.device(hardware.device))


def changed_hardware(flags: RunFlags, old: Hardware, batch_size: int) -> Hardware:
    """The hardware of a resumed run: as before, except for the flags and the present number of processes."""
    args = flags.machine
    device, processes = find_device(args.device), here()
    check_device(device)
    changed = replace(
        old,
        device=str(device),
        precision=old.precision if args.precision == "auto" else args.precision,
        workers=old.workers if args.workers is None else args.workers,
        threads=args.threads or old.threads,
        micro_batch=min(args.micro_batch or old.micro_batch, batch_size // processes.count),
        processes=processes.count,
        shard=flags.shard and processes.count > 1,
        decode=flags.decode,
    )
    _say_if_busy(changed)
    return changed


_NOT_MEASURED = Cost(0.0, 0.0, 0.0, 0, 0, 0)


def fitted(
    module: nn.Module, run: Run, source: ImageSource, wanted: int | None
) -> tuple[Cost, Hardware]:
    """The cost of a step, and the hardware with a micro-batch that fits in memory, or the wanted one.

    If no such micro-batch fits, a module that can computes activations again, and it is said.

    Raises:
        ResourceError: if a step does not fit in memory.
        SettingsError: if the module needs more images at a time than fit, or than are wanted.
    """

    batch_size = run.recipe.batch_size

    def attempt() -> tuple[Cost, Hardware]:
        cost = _measured(module, run, source)
        return cost, _fitting_part(cost, batch_size, wanted, run.hardware)

    can_recompute = isinstance(module, Recomputing) and not module.saves_memory
    try:
        cost, hardware = attempt()
    except (ResourceError, RuntimeError) as error:
        if not can_recompute or not (isinstance(error, ResourceError) or out_of_memory(error)):
            raise
    else:
        is_cut = wanted is None and hardware.micro_batch * hardware.processes < batch_size
        try:
            check_parts(module, hardware, batch_size)
        except SettingsError:  # what fits may be too few images at a time for the module
            if not can_recompute or not is_cut:
                raise
        else:
            return cost, hardware
    assert isinstance(module, Recomputing)
    module.saves_memory = True
    cost, hardware = attempt()
    check_parts(module, hardware, batch_size)
    console.print(
        "memory    activations of blocks are computed again in the backward pass, because they would not fit"
    )
    return cost, replace(hardware, recompute=True)


def _measured(module: nn.Module, run: Run, source: ImageSource) -> Cost:
    """The cost of a step; not measured for a sharded model, which may not fit in one process."""
    hardware = run.hardware
    if hardware.shard:
        return _NOT_MEASURED
    console.print("measuring the cost of a step ...")
    return trial(module, run.recipe, source, hardware)


def _fitting_part(cost: Cost, batch_size: int, wanted: int | None, hardware: Hardware) -> Hardware:
    """The hardware with a micro-batch that fits in memory, or the wanted one; at most a process's part of the batch."""
    device = torch.device(hardware.device)
    sharing = here().local_count if device.type == "cpu" else 1
    part = batch_size // hardware.processes
    if hardware.shard:
        return replace(hardware, micro_batch=min(wanted or part, part))
    return replace(hardware, micro_batch=fitting_micro_batch(cost, part, wanted, device, sharing))


def _say_if_busy(hardware: Hardware) -> None:
    """Print that a resumed run, which keeps its number of threads, has more of them than there are free cores."""
    if hardware.device != "cpu" or hardware.threads == 1 or hardware.processes > 1:
        return
    every, free = cores(), free_cores()
    if free < min(every, hardware.threads):
        notes.note_later(
            f"{_busy(every, free)}, and the run uses {hardware.threads} threads; --threads {free} may be faster"
        )


def say_what_differs(new: Hardware, old: Hardware, torch_version: str) -> None:
    """Print what differs on resuming, so that results are no longer equal bit for bit."""
    if new.processes != old.processes:
        console.print(
            f"started with {old.processes} processes, now {new.processes}: order, crops and masks stay the same; "
            "sums round differently"
        )
    if replace(new, processes=old.processes) != old:
        console.print("hardware settings differ from the run's; results stay equal up to rounding")
    if torch.__version__ != torch_version:
        console.print(
            f"started with torch {torch_version}, now {torch.__version__}: results stay equal up to rounding"
        )
