"""What the pages show: their blocks, and commands run as a reader would type them."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unmask import cli

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(r"unmask [a-z]")


def fenced(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page, each with its language; "" for those without one."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def lines_of(block: str) -> list[str]:
    """The lines of a block of commands, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    bare = (line.split("  #")[0].split(" # ")[0].strip() for line in lines)
    return [line for line in bare if line and not line.startswith("#")]


def command_lines(page: Path) -> Iterator[str]:
    """The commands of this package in all blocks of a page, without comments."""
    for language, block in fenced(page):
        if language in ("", "bash", "sh"):
            yield from filter(_COMMAND.match, lines_of(block))


def commands_in_tables(page: Path) -> Iterator[str]:
    """The commands of this package in the tables of a page."""
    for row in re.findall(r"^\|.*\|$", page.read_text(), re.MULTILINE):
        yield from re.findall(r"`(unmask [a-z]+ [^`]+)`", row)


def run(line: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str] | None = None) -> int:
    """Run a command line in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", [*shlex.split(line), *(arguments or [])])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
