"""Ctrl-C and SIGTERM: the step at hand is ended and saved first."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event


class Stop:
    """Whether and by which signal to stop."""

    def __init__(self) -> None:
        self.event = Event()
        self.signal: int = signal.SIGTERM  # if another process was told to


@contextmanager
def signals() -> Generator[Stop]:
    """Let Ctrl-C and SIGTERM end the step at hand first; a second Ctrl-C stops at once."""
    stop = Stop()

    def note(number: int, _: object) -> None:
        if stop.event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.event.set()
        stop.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
