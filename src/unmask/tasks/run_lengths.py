"""Masks as COCO's run lengths, a thousandth of their memory: column by column, first a number of pixels outside."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from unmask.cutouts import Cutouts


def run_lengths(masks: Bool[Tensor, "n h w"] | Cutouts) -> list[dict[str, Any]]:
    """Each mask with its size and its run lengths as numbers.

    Only the columns that a mask touches are looked at, because most masks are small.
    """
    if isinstance(masks, Cutouts):
        return [_of_part(*one, masks.size) for one in zip(masks.places, masks.parts, strict=True)]
    arrays, size = masks.numpy(), masks.shape[1:]
    touched: NDArray[np.bool_] = np.any(arrays, axis=1)  # [n w]
    found: list[dict[str, Any]] = []
    for array, row in zip(arrays, touched, strict=True):
        columns = np.flatnonzero(row)
        first, last = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
        found.append(_of_strip(array[:, first:last], int(first), size))
    return found


def _of_part(
    place: tuple[int, int], part: Bool[Tensor, "_ _"], size: tuple[int, int]
) -> dict[str, Any]:
    strip = np.zeros((size[0], part.shape[1]), dtype=bool)
    strip[place[0] : place[0] + part.shape[0]] = part.numpy()
    return _of_strip(strip, place[1], size)


def _of_strip(strip: NDArray[np.bool_], first: int, size: tuple[int, ...]) -> dict[str, Any]:
    """The run lengths of some columns, of which `first` is the number of the first one; the others are empty."""
    height, width = size
    padded = np.concatenate([[False], strip.T.ravel(), [False]])
    changes = np.flatnonzero(padded[1:] != padded[:-1]) + first * height
    runs = np.diff(changes, prepend=0, append=height * width).tolist()
    return {"size": [height, width], "counts": runs if runs[-1] else runs[:-1]}
