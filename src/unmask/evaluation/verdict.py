"""Whether an encoder is better than its controls: paired differences on the same test images, with a 95 % interval."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from unmask.evaluation.dense import DenseRow
from unmask.evaluation.frozen import PRETRAINED, RANDOM, RAW, SCRATCH, Row

_NORMAL_95 = 1.959964  # quantile of the normal distribution at 97.5 %
_FEWEST = 10  # test images of a verdict on class maps
_RESAMPLES = 4000
_AT_A_TIME = 100  # of them

_CONTROLS = {
    RANDOM: "the same encoder with random weights",
    RAW: "raw pixels",
    SCRATCH: "training from scratch",
}

Outcome = Literal["better", "no difference shown", "worse"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The difference in accuracy, or in mean IoU, between an encoder and a control on the same test images.

    Each side takes part with the feature (or the number of trained blocks) that scores best on the test images.
    """

    control: str
    """The arm of the control, as in `Row`."""

    labels: str
    """Training labels of each class."""

    feature: str
    """The feature of the encoder."""

    control_feature: str
    """The feature of the control."""

    difference: float
    """Score of the encoder minus that of the control, the mean over draws."""

    low: float
    """Lower end of the 95 % interval over test images."""

    high: float
    """Upper end of the 95 % interval over test images."""

    images: int
    """Number of test images."""

    @property
    def outcome(self) -> Outcome:
        """What the interval shows: it lies above 0, contains 0, or lies below 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        heading = {
            "better": "gain over",
            "no difference shown": "no gain shown over",
            "worse": "worse than",
        }[self.outcome]
        return (
            f"{heading} {_CONTROLS[self.control]}: {100 * self.difference:+.1f} points "
            f"(95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f})"
        )


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """A verdict for each control and amount of labels; none for scores without one right class for each image.

    Draws are averaged for each image, so the interval is over test images: it does not say how much another pretraining
    run or other labels would change the score.
    """
    return list(_verdicts(rows))


def _verdicts(rows: Sequence[Row]) -> Iterator[Verdict]:
    for labels in dict.fromkeys(row.labels for row in rows):
        scored = [row for row in rows if row.labels == labels and row.right]
        best = best_of_each_arm(scored, lambda row: row.mean)
        encoder = best.pop(PRETRAINED, None)
        for arm, control in best.items():
            if encoder is None or len(encoder.right[0]) != len(control.right[0]):
                continue  # images that could not be read for one of them
            each = _share_right(encoder) - _share_right(control)
            low, high = paired_interval(each)
            yield Verdict(
                control=arm,
                labels=labels,
                feature=encoder.feature,
                control_feature=control.feature,
                difference=float(each.mean()),
                low=low,
                high=high,
                images=len(each),
            )


def dense_verdicts(rows: Sequence[DenseRow]) -> list[Verdict]:
    """A verdict for each control on class maps; none for fewer than ten test images, which tell nothing of others."""
    best = best_of_each_arm(rows, lambda row: row.score.mean_iou)
    encoder = best.pop(PRETRAINED, None)
    if encoder is None or len(encoder.counts) < _FEWEST:
        return []
    found: list[Verdict] = []
    for arm, control in best.items():
        if len(encoder.counts) != len(control.counts):
            continue  # images that could not be read for one of them
        low, high = bootstrap_interval(encoder.counts, control.counts)
        found.append(
            Verdict(
                control=arm,
                labels="all",
                feature=encoder.feature,
                control_feature=control.feature,
                difference=encoder.score.mean_iou - control.score.mean_iou,
                low=low,
                high=high,
                images=len(encoder.counts),
            )
        )
    return found


R = TypeVar("R", Row, DenseRow)


def best_of_each_arm(rows: Sequence[R], score: Callable[[R], float]) -> dict[str, R]:
    """The row of each arm with the highest score."""
    best: dict[str, R] = {}
    for row in rows:
        if row.arm not in best or score(row) > score(best[row.arm]):
            best[row.arm] = row
    return best


def _share_right(row: Row) -> NDArray[np.float64]:
    """For each test image, the share of the draws that answer right [n]."""
    return np.mean(np.stack(row.right), axis=0)


def paired_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of paired differences, each between -1 and 1 [n].

    The normal interval of Agresti and Min (Statistics in Medicine 24, 2005): half an observation is added to each of the
    four cells of the paired table. So it holds for few images too, where the plain one may have no width.
    """
    n = len(differences) + 2  # half a +1, half a -1, and 1 without a difference
    mean = float(differences.sum()) / n
    variance = (float((differences**2).sum()) + 1) / n - mean**2
    half = _NORMAL_95 * math.sqrt(variance / n)
    return max(-1.0, mean - half), min(1.0, mean + half)


def bootstrap_interval(
    ours: Int[Tensor, "n 3 classes"], theirs: Int[Tensor, "n 3 classes"]
) -> tuple[float, float]:
    """The 95 % interval of a difference in mean IoU, from the counts of each test image (`DenseRow.counts`).

    The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3): images are drawn with
    replacement, the same ones for both sides, and the mean IoU of their pixels is taken.
    """
    images, random = len(ours), np.random.default_rng(0)
    differences: list[NDArray[np.float64]] = []
    for _ in range(_RESAMPLES // _AT_A_TIME):
        draws = random.multinomial(images, [1 / images] * images, _AT_A_TIME)
        differences.append(_mean_iou(draws, ours) - _mean_iou(draws, theirs))
    low, high = np.quantile(np.concatenate(differences), (0.025, 0.975))
    return float(low), float(high)


def _mean_iou(draws: NDArray[np.int64], counts: Int[Tensor, "n 3 classes"]) -> NDArray[np.float64]:
    """The mean IoU of the images of each draw, which says how often it has each image [draws n]."""
    sums = draws.astype(np.float64) @ counts.flatten(1).double().numpy()
    right, true, predicted = np.moveaxis(sums.reshape(len(draws), *counts.shape[1:]), 1, 0)
    either = true + predicted - right
    occurs = either > 0
    shares = np.divide(right, either, out=np.zeros_like(right), where=occurs)
    return shares.sum(1) / np.maximum(occurs.sum(1), 1)
