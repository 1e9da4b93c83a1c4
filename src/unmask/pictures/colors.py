"""Colours that can be told apart, and text that can be read on them."""

from functools import cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Color = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

_STEP = 15  # between the levels of a channel: 18 ** 3 candidates
_DARKEST, _BRIGHTEST = 35.0, 90.0  # lightness: visible on dark and on bright pictures
_LEAST_CHROMA = 30.0  # greys are what pictures have themselves
_FIRST = (225, 30, 45)  # red
_READABLE_IN_BLACK = 0.179  # luminance from which on black has more contrast than white (WCAG 2)


def class_colors(count: int) -> list[Color]:
    """A colour for each class; those of the first classes do not depend on `count`.

    Each is the one farthest from all before it in CIELAB, as in "Colour displays for categorical images" (Glasbey and others,
    2007), among 18 levels of each channel without greys, very dark and very bright ones. After these the colours recur.
    """
    palette = _palette(min(count, len(_candidates())))
    return [palette[number % len(palette)] for number in range(count)]


def text_color(background: Color) -> Color:
    """Black or white, whichever has more contrast; at least 4.5 to 1 on any colour."""
    luminance = float(_linear(np.array(background)) @ _TO_XYZ[1])
    return (0, 0, 0) if luminance > _READABLE_IN_BLACK else (255, 255, 255)


_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
"""From linear sRGB (IEC 61966-2-1)."""
_WHITE = _TO_XYZ.sum(1)


def _linear(levels: NDArray[np.integer]) -> Float[NDArray[np.float64], "*n 3"]:
    shares = levels / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def _lab(levels: NDArray[np.integer]) -> Float[NDArray[np.float64], "n 3"]:
    """Lightness, a and b of sRGB colours."""
    ratios = _linear(levels) @ _TO_XYZ.T / _WHITE
    x, y, z = np.where(
        ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios / (3 * (6 / 29) ** 2) + 4 / 29
    ).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@cache
def _candidates() -> NDArray[np.int64]:
    """Levels of red, green and blue [n 3]; the first colour comes first."""
    levels = np.arange(0, 256, _STEP)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness, a, b = _lab(grid).T
    usable = (lightness >= _DARKEST) & (lightness <= _BRIGHTEST) & (np.hypot(a, b) >= _LEAST_CHROMA)
    return np.concatenate([[_FIRST], grid[usable]])


@cache
def _palette(count: int) -> list[Color]:
    levels = _candidates()
    lab, chosen = _lab(levels), [0]
    nearest = np.linalg.norm(lab - lab[0], axis=1)  # distance to the colours chosen so far
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return [(int(red), int(green), int(blue)) for red, green, blue in levels[chosen]]
