"""A progress bar for functions that a Python program calls."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def with_bar(
    items: Iterable[T], total: int | None, what: str, progress: bool | None
) -> Iterator[T]:
    """Pass items on, with a bar on standard error: if `progress` says so, or by default on a terminal or in a notebook."""
    console = Console(stderr=True)
    shown = console.is_terminal or console.is_jupyter if progress is None else progress
    if not shown:
        yield from items
        return
    yield from track(items, what, total, console=console, transient=progress is None)
