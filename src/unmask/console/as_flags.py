"""An error about a field of a spec, in the words of the command line: with the flag as the user typed it."""

import re

from unmask.console.aliases import aliases_of, stands_for
from unmask.console.command_line import Line
from unmask.console.flag_table import Flag, every_flag
from unmask.errors import SettingsError


def as_flags(error: SettingsError, command: str, line: Line) -> SettingsError:
    """The error with flags in place of the fields of the spec in which it arose; an alias where one was typed.

    A field of one word is replaced only at the beginning, where messages name what is wrong: it may be a plain word later.
    """
    words = str(error)
    aliases = {stands_for(name): name for name in aliases_of(command) if name in line.flags}
    for flag in every_flag(command):
        if not isinstance(flag, Flag) or flag.positional or flag.keys[:-1] != error.keys:
            continue
        field = flag.keys[-1]
        typed = f"--{aliases.get(flag.path, flag.path)}"
        place = rf"(?<![\w.-]){field}(?!\w)" if "_" in field else rf"^{field}(?!\w)"
        words = re.sub(place, typed, words)
    return SettingsError(words)
