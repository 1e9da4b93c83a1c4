"""The machine's part of a command line: what the flags leave open is chosen, and what changed is said."""

from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

import torch

from unmask.commands.console import console
from unmask.errors import SettingsError
from unmask.training.hardware import (
    Hardware,
    best_precision,
    best_workers,
    cores,
    find_device,
)


@runtime_checkable
class MachineFlags(Protocol):
    """The flags of a training command that change no result."""

    @property
    def device(self) -> str:
        """Where to compute."""
        ...

    @property
    def precision(self) -> Literal["auto", "float32", "bfloat16"]:
        """Of matrix products."""
        ...

    @property
    def workers(self) -> int | None:
        """Loading processes."""
        ...

    @property
    def threads(self) -> int | None:
        """CPU threads."""
        ...

    @property
    def micro_batch(self) -> int | None:
        """Images computed at a time."""
        ...


def hardware_of(args: MachineFlags, *, in_memory: bool, batch_size: int) -> Hardware:
    """The hardware that flags and machine give; torch's threads are set to it.

    Raises:
        SettingsError: for a number of threads below 1.
        ResourceError: for a device that is not here.
    """
    if args.threads is not None and args.threads < 1:
        raise SettingsError(f"threads must be at least 1, got {args.threads}")
    device = find_device(args.device)
    torch.set_num_threads(args.threads or cores())
    return Hardware(
        device=str(device),
        precision=best_precision(device) if args.precision == "auto" else args.precision,
        workers=best_workers(device, in_memory) if args.workers is None else args.workers,
        threads=torch.get_num_threads(),
        micro_batch=args.micro_batch or batch_size,
    )


def changed_hardware(args: MachineFlags, old: Hardware) -> Hardware:
    """The hardware of a run that goes on: as it was, but for what the flags say."""
    return replace(
        old,
        device=str(find_device(args.device)),
        precision=old.precision if args.precision == "auto" else args.precision,
        workers=old.workers if args.workers is None else args.workers,
        threads=args.threads or old.threads,
        micro_batch=args.micro_batch or old.micro_batch,
    )


def say_what_differs(new: Hardware, old: Hardware, torch_version: str) -> None:
    """Say what of a run that goes on is no longer equal to the bit."""
    if new != old:
        console.print("hardware settings differ from the run's; results stay equal up to rounding")
    if torch.__version__ != torch_version:
        console.print(
            f"begun with torch {torch_version}, now {torch.__version__}: equal up to rounding"
        )
