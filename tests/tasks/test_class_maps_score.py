"""The score of class maps against loops over pixels, scikit-learn, and a matrix by hand."""

import pickle

import numpy as np
import pytest
import torch
from reference.problems import random
from sklearn.metrics import balanced_accuracy_score, jaccard_score
from torch import Tensor

from unmask.annotations import ClassMaps
from unmask.errors import DataError
from unmask.spec import from_json, to_json
from unmask.tasks.class_maps_score import ClassMapsScoring, MeanIoU
from unmask.tasks.task import Score, Scoring

NAMES = ("road", "tree", "car", "sky")
MAPS = ClassMaps(names=NAMES, ignored=255)


def drawn(seed: int, images: int = 5) -> tuple[list[Tensor], list[Tensor]]:
    """Predicted and true maps of several sizes, with ignored pixels."""
    generator = random(seed)
    predicted, truth = [], []
    for number in range(images):
        shape = (3 + number, 7)
        predicted.append(torch.randint(4, shape, generator=generator))
        actual = torch.randint(3, shape, generator=generator)  # no pixel is sky
        actual[torch.rand(shape, generator=generator) < 0.2] = 255
        truth.append(actual)
    return predicted, truth


def scored(predicted: list[Tensor], truth: list[Tensor], kind: ClassMaps = MAPS) -> MeanIoU:
    scoring = ClassMapsScoring(kind)
    scoring.add(tuple(predicted), tuple(truth))
    return scoring.result()


def pixels_of(predicted: list[Tensor], truth: list[Tensor]) -> list[tuple[int, int]]:
    """(true, predicted) class of every pixel that is not ignored."""
    pairs = zip(
        torch.cat([m.flatten() for m in truth]),
        torch.cat([m.flatten() for m in predicted]),
        strict=True,
    )
    return [(int(t), int(p)) for t, p in pairs if t != 255]


@pytest.mark.parametrize("seed", range(3))
def test_equals_loops_over_pixels(seed: int) -> None:
    predicted, truth = drawn(seed)
    score, pixels = scored(predicted, truth), pixels_of(predicted, truth)
    expected = []
    for number, one in enumerate(score.classes):
        both = sum(t == p == number for t, p in pixels)
        either = sum(number in (t, p) for t, p in pixels)
        assert one.pixels == sum(t == number for t, _ in pixels)
        assert one.iou == both / either
        expected.append(both / either)
        said = sum(p == number for _, p in pixels)
        assert one.precision == both / said
        assert one.recall == (both / one.pixels if one.pixels else None)
    assert score.value == score.mean_iou == pytest.approx(sum(expected) / 4, abs=1e-15)
    assert score.pixel_accuracy == sum(t == p for t, p in pixels) / len(pixels)
    assert (score.images, score.pixels) == (5, len(pixels))


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed: int) -> None:
    """Its macro average is over the classes that occur in the truth or in the predictions too."""
    predicted, truth = drawn(seed)
    actual, said = np.array(pixels_of(predicted, truth)).T
    score = scored(predicted, truth)
    assert score.mean_iou == pytest.approx(jaccard_score(actual, said, average="macro"), abs=1e-12)
    with pytest.warns(UserWarning, match="not in y_true"):  # sky
        balanced = balanced_accuracy_score(actual, said)
    assert score.mean_accuracy == pytest.approx(balanced, abs=1e-12)


def test_by_hand() -> None:
    """Sky is nowhere, car only predicted, one pixel ignored."""
    truth = [torch.tensor([[0, 0, 0, 1], [1, 0, 255, 0]])]
    predicted = [torch.tensor([[0, 0, 1, 1], [2, 0, 3, 0]])]
    score = scored(predicted, truth)
    road, tree, car, sky = score.classes
    assert (road.iou, tree.iou, car.iou, sky.iou) == (4 / 5, 1 / 3, 0.0, None)
    assert score.mean_iou == pytest.approx((4 / 5 + 1 / 3 + 0) / 3)
    assert score.mean_accuracy == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert score.pixel_accuracy == 5 / 7
    assert score.chance == pytest.approx(5 / 7 / 2)
    assert (car.recall, car.precision, sky.precision) == (None, 0.0, None)


def test_chance_is_the_best_constant_map() -> None:
    _, truth = drawn(7)
    constant = [
        scored([torch.full_like(one, number) for one in truth], truth) for number in range(3)
    ]
    score = constant[0]
    assert score.chance == pytest.approx(max(one.mean_iou for one in constant), abs=1e-12)
    assert score.majority == max(one.pixel_accuracy for one in constant)


@pytest.mark.parametrize("ignored", [0, 255])
def test_ignored_pixels_change_nothing(ignored: int) -> None:
    """Whatever is predicted there; 0 is ignored by some sets, and is then no class that occurs."""
    predicted, truth = drawn(1)
    truth = [one.masked_fill(one == 255, ignored) for one in truth]
    kind = ClassMaps(names=NAMES, ignored=ignored)
    changed = [
        torch.where(actual == ignored, (said + 1) % 4, said)
        for said, actual in zip(predicted, truth, strict=True)
    ]
    assert scored(predicted, truth, kind) == scored(changed, truth, kind)


@pytest.mark.parametrize("cut", range(6))
def test_parts_of_several_processes_make_the_same_score(cut: int) -> None:
    predicted, truth = drawn(2)
    parts = [ClassMapsScoring(MAPS), ClassMapsScoring(MAPS)]
    for part, rows in zip(parts, (slice(cut), slice(cut, None)), strict=True):
        part.add(tuple(predicted[rows]), tuple(truth[rows]))
    parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    assert parts[1].merged(parts).result() == scored(predicted, truth)


def test_a_number_that_is_no_class_is_refused() -> None:
    truth = [torch.tensor([[0, 4]])]
    with pytest.raises(DataError, match="holds the number 4, but there are 4 classes"):
        scored([torch.zeros(1, 2, dtype=torch.long)], truth)


def test_all_pixels_may_be_ignored() -> None:
    score = scored([torch.zeros(2, 2, dtype=torch.long)], [torch.full((2, 2), 255)])
    assert (score.value, score.chance, score.pixels, score.images) == (0.0, 0.0, 0, 1)


def test_keeps_the_contracts_and_goes_to_json() -> None:
    score = scored(*drawn(0))
    assert isinstance(ClassMapsScoring(MAPS), Scoring)
    assert isinstance(score, Score)
    assert from_json(MeanIoU, to_json(score)) == score
    assert score.line().startswith("mIoU ")


def test_table_has_a_row_of_each_class() -> None:
    table = scored([torch.tensor([[0, 1, 1]])], [torch.tensor([[0, 1, 255]])]).table()
    assert table.headings == ("class", "pixels", "share of pixels", "IoU", "recall", "precision")
    assert table.rows[0] == ("road", 1, 0.5, 1.0, 1.0, 1.0)
    assert table.rows[3] == ("sky", 0, 0.0, None, None, None)
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert table.mean() == ("mean of classes", 2, "", 1.0, 1.0, 1.0)
