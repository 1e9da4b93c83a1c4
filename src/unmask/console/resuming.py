"""What `--resume` has in common in all training commands."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from unmask.console.arguments import Peek
from unmask.console.hardware import RunFlags, changed_hardware
from unmask.console.output import console
from unmask.errors import SettingsError
from unmask.runs.folder import RunFolder
from unmask.runs.init import check_start
from unmask.runs.run import Run
from unmask.runs.tokenizer import TokenizerRun
from unmask.runs.transfer import AnyRun, TransferRun
from unmask.training.checkpoint import Checkpoint

R = TypeVar("R", Run, TransferRun, TokenizerRun)


def folder_to_resume(seen: Peek) -> RunFolder:
    """The folder that `--resume` names."""
    if seen.flags["resume"] in ("", "True") or seen.flags["resume"].startswith("--"):
        raise SettingsError("--resume needs the folder of a run: --resume runs/NAME")
    return RunFolder(seen.flags["resume"])


def going_on(run: R, flags: RunFlags) -> R:
    """The run with what may change as the flags say, on this machine."""
    return replace(
        run,
        hardware=changed_hardware(flags, run.hardware, run.recipe.batch_size),
        save_every_minutes=flags.save_every_minutes,
        max_set_aside=flags.max_set_aside,
    )


def newest_of(folder: RunFolder, run: AnyRun) -> Checkpoint | None:
    """Where a run goes on; damaged checkpoints that are passed over are named.

    Raises:
        RunError: if there is none, and the run was to start from given weights.
    """
    found, damaged = folder.newest()
    for line in damaged:
        console.print(f"passed over a damaged checkpoint: {line}")
    check_start(run, folder, found)
    return found


def refuse_changes(args: object, old: object, names: Iterable[str], another: str) -> None:
    """Refuse other values of these fields than a run has; `another` is the command that begins one with them.

    Raises:
        SettingsError: naming the flag.
    """
    for name in names:
        if getattr(args, name) != getattr(old, name):
            flags = {"recipe": "a setting of the recipe", "recipe_name": "--recipe"}
            flag = flags.get(name, f"--{name.replace('_', '-')}")
            raise SettingsError(
                f"--resume continues a run exactly, so {flag} cannot change; begin another with `{another}` and that "
                "change"
            )
