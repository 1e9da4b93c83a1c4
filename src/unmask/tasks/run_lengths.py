"""Masks as COCO's run lengths, a thousandth of their memory: column by column, first a number of pixels outside."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor


def run_lengths(masks: Bool[Tensor, "n h w"]) -> list[dict[str, Any]]:
    """Each mask with its size and its run lengths as numbers.

    Only the columns that a mask touches are looked at, because most masks are small.
    """
    arrays, (height, width) = masks.numpy(), masks.shape[1:]
    touched: NDArray[np.bool_] = np.any(arrays, axis=1)  # [n w]
    found: list[dict[str, Any]] = []
    for array, row in zip(arrays, touched, strict=True):
        columns = np.flatnonzero(row)
        first, last = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
        strip = array[:, first:last].T.ravel()
        padded = np.concatenate([[False], strip, [False]])
        changes = np.flatnonzero(padded[1:] != padded[:-1]) + first * height
        runs = np.diff(changes, prepend=0, append=height * width).tolist()
        found.append({"size": [height, width], "counts": runs if runs[-1] else runs[:-1]})
    return found
