"""`unmask completion --install`: complete commands, flags, kinds and recipes with Tab."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unmask.console.command_line import split
from unmask.console.completion import SCRIPTS
from unmask.console.flag_values import read
from unmask.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask completion`."""

    install: bool = False
    """Write the completion script, and load it when the shell starts; the script is printed if not given."""

    shell: Literal["auto", "bash", "zsh", "fish"] = "auto"
    """The shell; that of $SHELL if not given."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = Arguments(**read("completion", split(arguments, "completion"), {}))
    shell = _shell() if args.shell == "auto" else args.shell
    if args.install:
        _install(shell)
    else:
        print(SCRIPTS[shell], end="")
    return 0


def _shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SCRIPTS:
        raise SettingsError(
            f"completion is for {', '.join(SCRIPTS)}, and $SHELL is {name or 'not set'}; choose with --shell bash"
        )
    return name


def _install(shell: str) -> None:
    """Write the script of a shell, and the line that loads it; fish needs no line."""
    home = Path.home()
    try:
        if shell == "fish":
            config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
            script = config / "fish" / "completions" / "unmask.fish"
            _write(script, SCRIPTS[shell])
            undo = f"rm {shlex.quote(str(script))}"
        else:
            data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
            script = data / "unmask" / f"completion.{shell}"
            _write(script, SCRIPTS[shell])
            place = home if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home)
            start = place / f".{shell}rc"
            _load(start, f"source {shlex.quote(str(script))}  # completion of unmask")
            undo = f"rm {shlex.quote(str(script))}, and delete the line with that name from {start}"
    except OSError as error:
        raise SettingsError(
            f"{error.filename} cannot be written: {error.strerror}; print the script with `unmask completion --shell {shell}`"
        ) from None
    print(f"open a new {shell}, type `unmask pre` and press Tab\nto undo: {undo}")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    print(f"wrote {file}")


def _load(start: Path, line: str) -> None:
    """Add a line to the file that a shell reads at its start, once."""
    text = start.read_text(encoding="utf-8", errors="replace") if start.exists() else ""
    if line in text.splitlines():
        print(f"{start} loads it already")
        return
    end = "" if text.endswith("\n") or not text else "\n"
    with start.open("a", encoding="utf-8") as file:
        file.write(f"{end}{line}\n")
    print(f"added a line to {start}")
