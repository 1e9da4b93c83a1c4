"""Text in pictures: names of files and classes may hold anything, and a font draws only some of it."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageFont


def drawable(text: str) -> str:
    """The text as the font of pictures can draw it, on one line; other characters are written as in Python, such as \\u732b.

    Bytes of a file name that the locale could not decode are read as UTF-8 if they are.
    """
    if text.isascii() and text.isprintable():
        return text
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other halves of surrogate pairs
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    font = _dejavu()
    return "".join(
        letter if letter.isprintable() and font.get_char_index(ord(letter)) else _escaped(letter)
        for letter in text
    )


def plot_text(text: str) -> str:
    """The same for a plot, where matplotlib would read what is between two dollar signs as a formula."""
    return drawable(text).replace("$", r"\$")


def quiet_matplotlib() -> None:
    """Call this before importing it: without a folder for its cache it only starts more slowly, and need not say so."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def font_for(texts: list[str], size: int) -> Any:
    """Pillow's font; for letters that it lacks, the one of plots."""
    if all(text.isascii() for text in texts):
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(_file()), size)


def _escaped(letter: str) -> str:
    return (
        letter.encode("ascii", "backslashreplace").decode()
        if ord(letter) > 126
        else repr(letter)[1:-1]
    )


@cache
def _dejavu() -> Any:
    """The font of plots, for the question which letters it has."""
    file = _file()
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(file))


def _file() -> Path:
    """DejaVu Sans, which matplotlib brings: Latin, Greek, Cyrillic, Arabic and more."""
    quiet_matplotlib()
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
