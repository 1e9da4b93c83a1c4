"""Pictures of scores: they are drawn for every shape of input, and show what they are given."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.pictures.accuracy import (
    Bar,
    Line,
    Point,
    accuracy_bars,
    accuracy_by_size,
    accuracy_curves,
)
from unmask.pictures.figure import confusion_picture

SOME = [Point(0.4, 0.02), Point(0.6, 0.0)]
LINES = [Line("pretrained", SOME, False), Line("random initialisation", SOME[::-1], True)]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_longer_bars_take_more_ink(tmp_path: Path) -> None:
    ink: list[int] = []
    for mean in (0.2, 0.8):
        bars = [Bar("class token", "pretrained", Point(mean, 0.01), False)]
        bars.append(Bar("mean", "random", Point(0.9, 0.0), True))
        accuracy_bars(bars, "top-1", 0.1, "title", tmp_path / "bars.png")
        ink.append(int((pixels(tmp_path / "bars.png") < 100).sum()))
    assert ink[1] > 2 * ink[0]


def test_curves_and_levels_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    accuracy_curves(["1", "all"], LINES, [], "top-1", 0.1, "labels", "title", path)
    without = pixels(path)
    level = [Line("from scratch", SOME[:1], True)]
    accuracy_curves(["1", "all"], LINES, level, "top-1", 0.1, "labels", "title", path)
    assert (pixels(path).shape != without.shape) or (pixels(path) != without).any()


def test_methods_of_different_sizes_share_an_axis(tmp_path: Path) -> None:
    path = tmp_path / "sizes.png"
    accuracy_by_size(
        [[1_000_000, 86_000_000], [5_500_000, 86_000_000]], LINES, "top-1", 0.1, "t", path
    )
    assert pixels(path).min() < 100


@pytest.mark.parametrize("classes", [2, 10, pytest.param(100, marks=pytest.mark.slow), 300])
def test_confusion_of_few_and_many_classes(tmp_path: Path, classes: int) -> None:
    """All right, the diagonal alone is dark; all wrong, it is light."""
    names = tuple(f"a class with a long name {n}" for n in range(classes))
    dark: list[float] = []
    for counts in (np.eye(classes, dtype=np.int64), np.roll(np.eye(classes, dtype=np.int64), 1, 1)):
        confusion_picture(5 * counts, names, "title", tmp_path / "confusion.png")
        picture = pixels(tmp_path / "confusion.png")
        assert max(picture.shape) < 2200
        dark.append((picture < 90).mean())
    assert min(dark) > 0


def test_a_long_legend_makes_a_taller_picture(tmp_path: Path) -> None:
    heights: list[int] = []
    for count in (4, 24):
        lines = [
            Line(f"encoder {n}, a long name, with 5 labels", SOME, False) for n in range(count)
        ]
        accuracy_by_size(
            [[1_000, 3_000]] * count, lines, "top-1", 0.1, "title", tmp_path / "tall.png"
        )
        heights.append(len(pixels(tmp_path / "tall.png")))
    assert heights[1] > heights[0] + 200
