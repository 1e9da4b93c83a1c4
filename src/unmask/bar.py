"""A progress bar over the width of a terminal."""

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from unmask.progress import live

T = TypeVar("T")

_SHORTEST_BAR = 10  # columns; for more than the time left the bar may not be shorter
_SHARE = 7  # columns of " 38% " and of the spaces around the bar
_SPEED_SECONDS = 600.0  # the time left follows from the speed in so many last seconds


def clock(seconds: float | None) -> str:
    """A time left as hours, minutes and seconds; dashes if it is not known yet."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bar:
    """A bar over the width of the terminal: what is done, the share that is done, a state in words, and the time left."""

    def __init__(self, console: Console, doing: str, total: int | None, *, transient: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            # what others print goes above the bar, but never from a pipe or file to the terminal
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
            expand=True,
            transient=transient,
            speed_estimate_period=_SPEED_SECONDS,
        )
        self.started = False
        self._task = self._progress.add_task(doing, total=total, state="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        live.append(self._progress.console)
        self.started = True
        return self

    def __exit__(self, *_: object) -> None:
        live.remove(self._progress.console)
        self._progress.stop()

    def advance_to(self, done: int, total: int | None, state: str, *more: str) -> None:
        """Show progress; as much of `more` follows the time left as there is room for."""
        task = self._progress.tasks[0]
        task.total = total  # given to `update`, a new total would forget the speed
        self._progress.update(self._task, completed=done)
        words = f"{state}  ETA {clock(task.time_remaining)}" if done != total else state
        room = self._progress.console.width - len(task.description) - _SHORTEST_BAR - _SHARE
        for word in more:
            if len(words) + 2 + len(word) > room:
                break
            words += f"  {word}"
        self._progress.update(self._task, state=words)


def console_on(stderr: bool = False, **settings: Any) -> Console:
    """A console of rich. In a notebook without ipywidgets, which its bars need, it writes the lines of a pipe.

    Notebooks ask for colours (FORCE_COLOR), by which rich would take them for terminals.
    """
    console = Console(stderr=stderr, **settings)
    if console.is_jupyter and not find_spec("ipywidgets"):
        return Console(stderr=stderr, force_jupyter=False, force_terminal=False, **settings)
    return console


def with_bar(
    items: Iterable[T], total: int | None, what: str, progress: bool | None
) -> Iterator[T]:
    """Pass items on, for a Python program, with a bar on standard error.

    It is shown if `progress` says so, or by default on a terminal or in a notebook. `total` is None if it is not known.
    """
    console = console_on(stderr=True)
    shown = console.is_terminal or console.is_jupyter if progress is None else progress
    if not shown:
        yield from items
        return
    with Bar(console, what, total, transient=progress is None) as bar:
        for done, item in enumerate(items, 1):
            yield item
            bar.advance_to(done, total, f"{done:,}" if total is None else f"{done:,} of {total:,}")
