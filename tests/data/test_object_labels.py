"""Labels that a Python program holds: numbers, names, and what is neither."""

from typing import Any

import numpy as np
import pytest
import torch

from unmask.annotations import ClassLabels, MultiLabels, Unlabelled
from unmask.data.labels import word_labels
from unmask.data.object_labels import labels_of
from unmask.errors import SettingsError

YEARS = [2020, 2019, 2020, 2024]


@pytest.mark.parametrize(
    "values",
    [
        YEARS,
        tuple(YEARS),
        np.array(YEARS),
        np.array(YEARS, np.uint16),
        torch.tensor(YEARS),
        [np.int32(year) for year in YEARS],
        [torch.tensor(year) for year in YEARS],
        np.array(YEARS, np.float64),
        [float(year) for year in YEARS],
    ],
    ids=lambda values: f"{type(values).__name__} of {type(values[0]).__name__}",
)
def test_numbers_with_holes_are_names(values: Any) -> None:
    labels = labels_of(list(values), None)
    assert labels.kind == ClassLabels(names=("2019", "2020", "2024"))
    assert labels.values.tolist() == [1, 0, 1, 2]
    of_file = word_labels([str(year) for year in YEARS], {})
    assert of_file is not None
    assert (of_file.kind, of_file.values.tolist()) == (labels.kind, labels.values.tolist())


def test_a_million_is_a_name_too() -> None:
    assert labels_of([1_000_000, 3], None).kind == ClassLabels(names=("3", "1000000"))
    with pytest.raises(SettingsError, match="too large for a number; give it as text"):
        labels_of([2**63, 0], None)


def test_numbers_without_holes_and_numbers_of_named_classes() -> None:
    assert labels_of([1, 0, 2], None).kind == ClassLabels(names=("0", "1", "2"))
    named = labels_of([2, 0], ["cat", "dog", "owl"])
    assert named.kind == ClassLabels(names=("cat", "dog", "owl"))
    assert named.values.tolist() == [2, 0]


def test_what_is_not_known() -> None:
    labels = labels_of([7, None, -1, -100, float("nan"), 9], None)
    assert labels.kind == ClassLabels(names=("7", "9"))
    assert labels.values.tolist() == [0, -1, -1, -1, -1, 1]
    assert labels_of([None, float("nan")], None).kind == Unlabelled()


def test_columns_of_0_and_1_stay_columns() -> None:
    labels = labels_of([torch.tensor([1.0, 0.0]), None], None)
    assert labels.kind == MultiLabels(names=("0", "1"))
    assert labels.values.tolist() == [[1, 0], [-1, -1]]


def test_half_a_class_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"the number or the name of a class, .* got 0\.5"):
        labels_of([0.5, 1.0], None)
