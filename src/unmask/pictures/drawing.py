"""One policy for pictures beside a result: the result is complete without them, so an error of drawing is only a note."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from unmask.errors import first_line


def drawn(path: Path, draw: Callable[[Path], object]) -> str:
    """Draw a picture to a file; returns an empty text, or a note why there is none."""
    try:
        draw(path)
    except Exception as error:  # libraries that draw raise errors of many kinds
        with suppress(OSError):
            path.unlink(missing_ok=True)  # a part of it
        return (
            f"{path} could not be drawn ({first_line(error)}); the results are complete without it"
        )
    return ""
