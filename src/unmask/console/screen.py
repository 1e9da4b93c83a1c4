"""What commands print: prose wrapped at words, warnings, notes and results.

Does not import torch, so that a command can speak before it does.
"""

import os
import re
import textwrap

from rich.console import Console, RenderableType

from unmask.console.verbosity import verbosity

_WIDE = 160  # columns of tables in a pipe or file

# headings of ten columns, such as "images    ", and those of notes; wrapped lines continue below what follows them
_HEADING = re.compile(r"warning: |note: |(?=.{9} \S)(?:\S{1,8} {2,}|\S{9} | {10})")
# lines that hold a command to be pasted stay whole
_COMMAND = re.compile(r"(?:^|: +)unmask [a-z]")


class Screen:
    """A stream of the terminal: standard output or standard error."""

    def __init__(self, stderr: bool = False) -> None:
        self.rich = Console(highlight=False, markup=False, stderr=stderr)
        self.silent = False
        """Whether nothing is printed: other processes of a run."""
        if not (self.rich.is_terminal or self.rich.is_jupyter or "COLUMNS" in os.environ):
            self.rich.width = _WIDE

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return self.rich.is_terminal or self.rich.is_jupyter

    @property
    def says_all(self) -> bool:
        """Whether more than results and warnings is printed."""
        return not self.silent and verbosity() != "quiet"

    def print(self, what: RenderableType, style: str | None = None) -> None:
        """Print what a user wants to know while a command works; not with --quiet."""
        if self.says_all:
            self._show(what, style)

    def result(self, what: RenderableType) -> None:
        """Print a result."""
        if not self.silent:
            self._show(what)

    def warn(self, words: str) -> None:
        """Print a warning: something is probably wrong."""
        if not self.silent:
            self._show(f"warning: {words}", "yellow")

    def note(self, words: str) -> None:
        """Print a note: something that a user may not expect."""
        self.print(f"note: {words}")

    def _show(self, what: RenderableType, style: str | None = None) -> None:
        if not isinstance(what, str):
            self.rich.print(what)
            return
        text = wrapped(what, self.rich.width) if self.rich.is_terminal else what
        self.rich.print(text, style=style, soft_wrap=True)


console = Screen()
notes = Screen(stderr=True)
"""For everything that is not a result, so that the output of --json stays valid JSON."""


def wrapped(text: str, width: int) -> str:
    """Lines of at most `width` columns, broken between words only; words to be pasted are never broken."""
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    if len(line) <= width or _COMMAND.search(line):
        return line
    heading = _HEADING.match(line)
    start = heading.group() if heading else ""
    return textwrap.fill(
        line[len(start) :],
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def say_loading() -> None:
    """Say on a terminal that PyTorch is loaded, which takes seconds; to be called before it is imported."""
    if notes.rich.is_terminal:
        notes.print("loading PyTorch ...")
