"""Ctrl-C and SIGTERM finish and save the current step before the program ends."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event


class Stop:
    """Whether to stop, and because of which signal."""

    def __init__(self) -> None:
        self.event = Event()
        self.signal: int = signal.SIGTERM  # where another process got the signal


@contextmanager
def signals() -> Generator[Stop]:
    """On Ctrl-C or SIGTERM finish the current step first; a second Ctrl-C stops at once."""
    stop = Stop()

    def handle(number: int, _: object) -> None:
        if stop.event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.event.set()
        stop.signal = number

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
