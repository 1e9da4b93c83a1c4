"""What commands print: prose wrapped at words, warnings, notes and results.

Does not import torch, so that a command can speak before it does.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import RenderableType

from unmask.bar import console_on
from unmask.console.verbosity import verbosity
from unmask.console.wrapping import wrapped
from unmask.progress import live

_WIDE = 160  # columns of tables in a pipe or file


class Screen:
    """A stream of the terminal: standard output or standard error."""

    def __init__(self, stderr: bool = False) -> None:
        self.rich = console_on(stderr, highlight=False, markup=False)
        self.silent = False
        """Whether nothing is printed: other processes of a run."""
        self.terse = False
        """Whether only results and warnings are printed: later runs of a series."""
        if not (self.rich.is_terminal or self.rich.is_jupyter or "COLUMNS" in os.environ):
            self.rich.width = _WIDE

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return self.rich.is_terminal or self.rich.is_jupyter

    @property
    def says_all(self) -> bool:
        """Whether more than results and warnings is printed."""
        return not (self.silent or self.terse) and verbosity() != "quiet"

    def print(self, what: RenderableType, style: str | None = None) -> None:
        """Print what a user wants to know while a command works; not with --quiet."""
        if self.says_all:
            self._show(what, style)

    def result(self, what: RenderableType) -> None:
        """Print a result."""
        say_waiting()
        if not self.silent:
            self._show(what)

    def warn(self, words: str) -> None:
        """Print a warning: something is probably wrong."""
        if not self.silent:
            self._show(f"warning: {words}", "yellow")

    def note(self, words: str) -> None:
        """Print a note: something that a user may not expect."""
        self.print(f"note: {words}")

    def note_later(self, words: str) -> None:
        """A note that is printed once by `say_waiting`, before the first result, and not at all if an error comes first."""
        if (self, words) not in _waiting:
            _waiting.append((self, words))

    def _show(self, what: RenderableType, style: str | None = None) -> None:
        # above a bar on the same terminal, whichever stream it is drawn on; else words would follow it in its line
        place = live[-1] if live and self.rich.is_terminal else self.rich
        if not isinstance(what, str):
            place.print(what)
            return
        text = wrapped(what, self.rich.width) if self.rich.is_terminal else what
        place.print(text, style=style, soft_wrap=True)


_waiting: list[tuple[Screen, str]] = []
"""Notes that wait until the input is known to be good."""


def say_waiting() -> None:
    """Print the notes that wait; to be called when the input has been checked and long work begins."""
    while _waiting:
        screen, words = _waiting.pop(0)
        screen.note(words)


@contextmanager
def notes_that_wait() -> Generator[None]:
    """Around a command: notes that still wait when it has ended well are printed then; after an error they are not."""
    _waiting.clear()
    yield
    say_waiting()


console = Screen()
notes = Screen(stderr=True)
"""For everything that is not a result, so that the output of --json stays valid JSON."""


def say_loading() -> None:
    """Say on a terminal that PyTorch is loaded, which takes seconds; to be called before it is imported."""
    if notes.rich.is_terminal:
        notes.print("loading PyTorch ...")
