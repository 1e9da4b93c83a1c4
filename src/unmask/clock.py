"""When the command that runs now was entered, for runs that end after a time."""

import time

_entered = time.monotonic()


def enter() -> None:
    """Note that a command is entered now."""
    global _entered
    _entered = time.monotonic()


def entered() -> float:
    """When the command was entered, or else when this package was imported (`time.monotonic`)."""
    return _entered
