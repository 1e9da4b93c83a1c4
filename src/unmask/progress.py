"""Long loops say how far they are, if somebody listens: the console draws a bar, Python calls show nothing."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

Steps = Iterator[tuple[Any, int]]
"""Items of a loop, each with its size."""

Reporter = Callable[[Steps, int, str], Iterator[Any]]
"""Passes the items of a loop on and shows progress, given the total size and what is done, in words."""

live: list[Any] = []
"""The terminals (of rich) on which a bar is drawn now, the newest last."""

_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def reported(reporter: Reporter) -> Generator[None]:
    """Show the progress of `counted` loops within this block."""
    before = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(before)


def counted(
    items: Iterable[T], total: int, doing: str, size: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """The items of a loop, whose sizes sum to `total`; `doing` says what the loop does, such as "reading images"."""
    reporter = _reporter.get()
    if reporter is None:
        return iter(items)
    return reporter(((item, size(item)) for item in items), total, doing)
