"""What must stay the same when a run is resumed."""

import shlex
from dataclasses import fields
from typing import Any

from unmask.console.aliases import aliases_of
from unmask.console.command_line import Line
from unmask.console.flag_table import every_flag
from unmask.console.training_command import Command
from unmask.errors import SettingsError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run


def refuse_changes(
    command: Command, flags: Any, old_flags: Any, folder: RunFolder, line: Line
) -> None:
    """Check that no field that must stay the same has changed.

    Raises:
        SettingsError: with the flag as it was typed.
    """
    for name in command.fixed:
        new, old = getattr(flags, name), getattr(old_flags, name)
        if new == old:
            continue
        if name == "about_data":  # a group of flags; the message names the one that differs
            name = next(f.name for f in fields(new) if getattr(new, f.name) != getattr(old, f.name))
        usual = {"recipe_name": "--recipe"}.get(name, f"--{name.replace('_', '-')}")
        settings = _settings(command.name, line) if name == "recipe" else []
        again = command.again.format(run=shlex.quote(str(folder.root)))
        way = f"start another run with `{again}` and that change"
        if settings == ["--epochs"]:
            longer = command.longer(Run.read(folder), folder.root, line.flags["epochs"][0])
            way = f"to train it longer, {longer}" if longer else way
        raise SettingsError(
            f"--resume continues a run exactly, so {' and '.join(settings) or usual} cannot change; {way}"
        )


def _settings(command: str, line: Line) -> list[str]:
    """The flags and kinds of a command line that set something of the recipe, as they were typed."""
    of_recipe = {each.path for each in every_flag(command) if each.keys[0] == "recipe"}
    aliases = aliases_of(command)
    flags = [f"--{name}" for name in line.flags if name in of_recipe or name in aliases]
    return flags + [f"{path}:{kind}" for path, kind in line.kinds.items()]
