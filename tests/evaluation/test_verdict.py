"""Verdicts: paired intervals against exact tests, and the sentence that they end with."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import jaccard_score

from unmask.evaluation.frozen import PRETRAINED, RANDOM, RAW, Row
from unmask.evaluation.verdict import bootstrap_interval, paired_interval, verdicts


@dataclass(frozen=True)
class _Share:
    value: float


def row(arm: str, *draws: list[int], feature: str = "cls", labels: str = "all") -> Row:
    right = tuple(np.array(draw, dtype=bool) for draw in draws)
    scores = [_Share(float(draw.mean())) for draw in right]
    return Row(arm, "knn", feature, labels, scores, "", 1.0, 1.0, "computed", right=right)  # pyright: ignore[reportArgumentType]


def differences(wins: int, losses: int, ties: int) -> NDArray[np.float64]:
    return np.repeat([1.0, -1.0, 0.0], [wins, losses, ties])


@pytest.mark.parametrize("wins", range(0, 41, 2))
def test_the_interval_excludes_zero_when_mcnemars_exact_test_is_clear(wins: int) -> None:
    """Near a p value of 5 % the two may differ, because one is exact and the other normal."""
    losses = 40 - wins
    low, high = paired_interval(differences(wins, losses, 60))
    p = binomtest(wins, 40).pvalue
    if p < 0.03:
        assert low > 0 or high < 0
    if p > 0.08:
        assert low < 0 < high


def test_the_interval_covers_the_true_difference_in_95_of_100_draws() -> None:
    random = np.random.default_rng(0)
    draws = random.choice([1.0, -1.0, 0.0], p=[0.3, 0.2, 0.5], size=(4000, 50))
    covered = [low <= 0.1 <= high for low, high in map(paired_interval, draws)]
    # standard error of the share: sqrt(0.95 x 0.05 / 4000) = 0.0034
    assert 0.935 < np.mean(covered) < 0.975


def test_equal_answers_on_few_images_prove_nothing() -> None:
    low, high = paired_interval(np.zeros(4))
    assert low < -0.3
    assert high > 0.3


def test_pairs_give_a_narrower_interval_than_two_separate_scores() -> None:
    """Both are right for the same 50 of 100 images, and the encoder for 10 more."""
    pairs = differences(10, 0, 90)
    low, high = paired_interval(pairs)
    separate = 2 * 1.96 * np.sqrt((0.6 * 0.4 + 0.5 * 0.5) / 100)
    assert low > 0
    assert high - low < separate / 1.5


def test_a_gain_is_called_one_and_draws_are_averaged() -> None:
    rows = [
        row(PRETRAINED, [1] * 90 + [0] * 10, [1] * 80 + [0] * 20),
        row(RANDOM, [1] * 50 + [0] * 50),
        row(RAW, [1] * 85 + [0] * 15),
    ]
    random, raw = verdicts(rows)
    assert random.difference == pytest.approx(0.35)
    assert random.outcome == "better"
    assert random.words.startswith(
        "gain over the same encoder with random weights: +35.0 points (95 % interval +"
    )
    assert raw.outcome == "no difference shown"
    assert raw.words.startswith("no gain shown over raw pixels: +0.0 points (95 % interval -")


def test_a_loss_is_called_one() -> None:
    (one,) = verdicts([row(PRETRAINED, [0] * 50), row(RANDOM, [1] * 50)])
    assert one.outcome == "worse"
    assert one.words.startswith("worse than the same encoder with random weights: -100.0 points")


def test_each_side_takes_part_with_its_best_feature() -> None:
    rows = [
        row(PRETRAINED, [1, 0, 0, 0], feature="cls"),
        row(PRETRAINED, [1, 1, 1, 0], feature="mean"),
        row(RANDOM, [1, 1, 0, 0], feature="cls"),
        row(RANDOM, [1, 0, 0, 0], feature="mean"),
    ]
    (one,) = verdicts(rows)
    assert (one.feature, one.control_feature, one.difference) == ("mean", "cls", 0.25)


def test_every_amount_of_labels_has_a_verdict() -> None:
    rows = [
        row(arm, [1, 0], labels=labels) for arm in (PRETRAINED, RANDOM) for labels in ("1", "all")
    ]
    assert [one.labels for one in verdicts(rows)] == ["1", "all"]


def test_no_verdict_without_single_classes_or_for_other_images() -> None:
    several = row(RANDOM, [1, 0])._replace(right=())
    assert verdicts([row(PRETRAINED, [1, 0]), several, row(RAW, [1, 0, 1])]) == []


def class_maps(images: int, seed: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """True classes [images pixels], and those that two classifiers say; the first is better."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, size=(images, 40))
    said = [
        np.where(random.random(truth.shape) < share, truth, random.integers(0, 3, truth.shape))
        for share in (0.6, 0.5)
    ]
    return truth, said


def counts_of(truth: NDArray[np.int64], said: NDArray[np.int64]) -> torch.Tensor:
    """By loops: for each image and class, the pixels that are right, true, and predicted."""
    counts = torch.zeros(len(truth), 3, 3, dtype=torch.long)
    for image, (actual, predicted) in enumerate(zip(truth, said, strict=True)):
        for one, other in zip(actual.tolist(), predicted.tolist(), strict=True):
            counts[image, 0, one] += one == other
            counts[image, 1, one] += 1
            counts[image, 2, other] += 1
    return counts


def test_the_interval_of_mean_iou_is_scipys_percentile_bootstrap() -> None:
    """The ends of two runs of a bootstrap differ by its own error, a twentieth of the width."""
    truth, (ours, theirs) = class_maps(30, 0)

    def difference(rows: NDArray[np.int64]) -> float:
        actual = truth[rows].ravel()
        first, second = (
            jaccard_score(actual, said[rows].ravel(), average="macro") for said in (ours, theirs)
        )
        return float(first - second)

    found = bootstrap_interval(counts_of(truth, ours), counts_of(truth, theirs))
    expected = bootstrap(
        (np.arange(30),), difference, n_resamples=1000, method="percentile", vectorized=False,
        random_state=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    width = expected.high - expected.low
    assert found == pytest.approx((expected.low, expected.high), abs=width / 10)
    assert found[0] < difference(np.arange(30)) < found[1]


def test_equal_class_maps_have_no_difference() -> None:
    truth, (ours, _) = class_maps(12, 2)
    counts = counts_of(truth, ours)
    assert bootstrap_interval(counts, counts) == (0.0, 0.0)
