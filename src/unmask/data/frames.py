"""The frame that annotations are drawn in: the picture as stored, or as it is displayed once its orientation is applied.

Cameras store a picture lying on its side and say so in EXIF. Whoever drew the boxes saw the picture as displayed, or as stored,
and the annotations rarely say which. Their size tells it, unless width and height are equal: then they count as displayed.
"""

from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.decode import TURNS
from unmask.errors import DataError

T = TypeVar("T", bound=np.generic)

UPRIGHT = 1
"""EXIF's orientation of a picture that is displayed as it is stored."""

_LYING = (5, 6, 7, 8)
"""EXIF's orientations that swap width and height."""


class Turned(NamedTuple):
    """How annotations become those of the displayed picture."""

    orientation: int
    """EXIF's orientation to apply; `UPRIGHT` for none."""
    stored: Size
    """Size of the frame that the annotations are drawn in."""


def swapped(size: Size) -> Size:
    """The size of a picture lying on its side."""
    return Size(size.width, size.height)


def displayed(stored: Size, orientation: int) -> Size:
    """The size of a stored picture as it is displayed."""
    return swapped(stored) if orientation in _LYING else stored


def turn_of(frame: Size, shown: Size, orientation: int, what: str) -> Turned:
    """How annotations of size `frame` are turned for a picture that is displayed in size `shown`.

    `what` are the annotations, with their file, for the error.

    Raises:
        DataError: if they have neither the displayed size nor the stored one.
    """
    if frame == shown:
        return Turned(UPRIGHT, frame)
    if orientation in _LYING and swapped(frame) == shown:
        return Turned(orientation, frame)
    raise DataError(
        f"the picture has {shown.width} x {shown.height} pixels, and {what} {frame.width} x {frame.height}; give both the "
        "same size, or remove the picture"
    )


def turned_boxes(
    boxes: Float[NDArray[np.float32], "n 4"], turned: Turned
) -> Float[NDArray[np.float32], "n 4"]:
    """Boxes (left, top, right, bottom) of the stored picture, in the displayed one."""
    if turned.orientation == UPRIGHT:
        return boxes
    x, y = boxes[:, 0::2], boxes[:, 1::2]
    right, bottom = turned.stored.width - x, turned.stored.height - y
    # as `TURNS` moves the pixels
    x, y = {5: (y, x), 6: (bottom, x), 7: (bottom, right), 8: (y, right)}[turned.orientation]
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)


def turned_pixels(
    pixels: Shaped[NDArray[T], "h w"], turned: Turned
) -> Shaped[NDArray[T], "new_h new_w"]:
    """A mask or map of the stored picture, as the displayed one."""
    return TURNS[turned.orientation](pixels) if turned.orientation != UPRIGHT else pixels
