"""How well odd images and odd pixels are told from normal ones."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

MOST_FALSE = 0.3
"""Share of falsely odd pixels up to which the overlap with odd regions is integrated (Bergmann and others, 2020)."""


class Separation(NamedTuple):
    """How well scores tell odd from normal; NaN where one of the two does not occur."""

    auroc: float
    """Area under the ROC curve."""
    precision: float
    """Average precision."""


def separation(scores: NDArray[np.float32], odd: NDArray[np.bool_]) -> Separation:
    """Area under the ROC curve and average precision, by scikit-learn."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if odd.all() or not odd.any():
        return Separation(float("nan"), float("nan"))
    return Separation(
        float(roc_auc_score(odd, scores)), float(average_precision_score(odd, scores))
    )


def region_overlap(
    maps: Sequence[NDArray[np.float32]],
    truths: Sequence[NDArray[np.bool_]],
    most_false: float = MOST_FALSE,
    ignored: Sequence[NDArray[np.bool_]] | None = None,
) -> float:
    """PRO: the mean share of each odd region that is found, integrated over false alarms up to a limit, from 0 to 1.

    "Uninformed Students" (Bergmann and others, CVPR 2020), section 4: at each threshold the share of each connected
    region (8 neighbours) that is above it, averaged over regions, against the share of normal pixels above it. The
    integral is divided by the limit. NaN without odd or without normal pixels. `ignored` pixels are not odd, and do not
    count as normal.
    """
    from scipy.ndimage import label
    from sklearn.metrics import auc

    worth: list[NDArray[np.float64]] = []
    regions = 0
    for truth in truths:
        numbers = np.zeros(truth.shape, np.int64)
        count = cast(int, label(truth, np.ones((3, 3)), numbers))
        sizes = np.bincount(numbers.ravel(), minlength=1)
        worth.append((1 / np.maximum(sizes, 1))[numbers] * truth)
        regions += count
    scores = np.concatenate([one.ravel() for one in maps])
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    found = np.concatenate([one.ravel() for one in worth])[order]
    normal = np.concatenate([~one.ravel() for one in truths])
    if ignored is not None:
        normal &= ~np.concatenate([one.ravel() for one in ignored])
    normal = normal[order]
    if not regions or not normal.any():
        return float("nan")
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores pass a threshold together
    overlap = np.append(0.0, (np.cumsum(found) / regions)[last])
    false = np.append(0.0, (np.cumsum(normal) / normal.sum())[last])
    within = false <= most_false
    at_limit = np.interp(most_false, false, overlap)
    overlap = np.append(overlap[within], at_limit)
    false = np.append(false[within], most_false)
    return float(auc(false, overlap) / most_false)
