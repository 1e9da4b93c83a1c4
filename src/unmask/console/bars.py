"""Bars for long loops: over the width of a terminal, else a line now and then."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

from unmask.bar import Bar, clock
from unmask.console.screen import Screen
from unmask.progress import Steps, reported

T = TypeVar("T")

PLAIN_SECONDS = 15.0
"""Time between lines of progress where there is no terminal."""

_BAR_AFTER = 0.5  # seconds; shorter loops show no bar
_REFRESH = 0.1  # seconds; a million fast steps must not wait for the bar


class State(NamedTuple):
    """How far a long work is."""

    done: int
    total: int
    where: str
    """The same in words, such as "step 3 of 10"."""
    words: tuple[str, ...] = ()
    """Further figures, the most important first."""


def watched(
    screen: Screen, reports: Iterable[T], name: str, state: Callable[[T], State | None]
) -> Iterator[T]:
    """Pass reports on and show their state: a bar on a terminal, else a line now and then, and one at the end.

    Reports without a state change nothing.
    """
    if not screen.says_all:
        return iter(reports)
    return (_live if screen.is_terminal else _plain)(screen, reports, name, state)


def _live(
    screen: Screen, reports: Iterable[T], name: str, state: Callable[[T], State | None]
) -> Iterator[T]:
    with Bar(screen.rich, name, None, transient=False) as bar:
        for report in reports:
            if (now := state(report)) is not None:
                bar.advance_to(now.done, now.total, *(now.words or (now.where,)))
            yield report


def _plain(
    screen: Screen, reports: Iterable[T], name: str, state: Callable[[T], State | None]
) -> Iterator[T]:
    first: int | None = None
    started, printed = time.perf_counter(), 0.0
    for report in reports:
        seconds, now = time.perf_counter(), state(report)
        if now is not None:
            if first is None:
                first, started = now.done, seconds
            if seconds - printed > PLAIN_SECONDS or now.done == now.total:
                eta = []
                if first < now.done < now.total:
                    left = (seconds - started) / (now.done - first) * (now.total - now.done)
                    eta = [f"ETA {clock(left)}"]
                words = [now.where, *now.words[:1], *eta, *now.words[1:]]
                screen.print(f"{name}: {', '.join(words)}")
                printed = seconds
        yield report


class _Counter:
    """Shows the progress of a loop on a screen: a bar on a terminal, else a line now and then."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._busy = False

    def __call__(self, steps: Steps, total: int, doing: str) -> Iterator[Any]:
        if self._busy or not self._screen.says_all:  # a loop within a loop shows nothing
            yield from (item for item, _ in steps)
            return
        self._busy = True
        show = self._bar if self._screen.is_terminal else self._lines
        try:
            yield from show(steps, total, doing)
        finally:
            self._busy = False

    def _bar(self, steps: Steps, total: int, doing: str) -> Iterator[Any]:
        bar, done = Bar(self._screen.rich, doing, total, transient=True), 0
        due = time.perf_counter() + _BAR_AFTER
        with ExitStack() as stack:
            for item, size in steps:
                yield item
                done, now = done + size, time.perf_counter()
                if now < due:
                    continue
                if not bar.started:
                    stack.enter_context(bar)
                bar.advance_to(done, total, f"{done:,} of {total:,}")
                due = now + _REFRESH

    def _lines(self, steps: Steps, total: int, doing: str) -> Iterator[Any]:
        printed, done = time.perf_counter(), 0
        for item, size in steps:
            yield item
            done, now = done + size, time.perf_counter()
            if now - printed > PLAIN_SECONDS:
                self._screen.print(f"{doing}: {done:,} of {total:,}")
                printed = now


@contextmanager
def progress_on(screen: Screen) -> Generator[None]:
    """Show the progress of long loops on a screen within this block."""
    with reported(_Counter(screen)):
        yield
