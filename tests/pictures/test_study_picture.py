"""The picture of a study: hollow points for one seed, marked breaks, no empty halves."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unmask
from unmask.pictures import study
from unmask.pictures.figure import new_figure
from unmask.pictures.study import Panel, study_picture

STUDIES = Path(unmask.__file__).parents[2] / "studies"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn in a test."""
    made: list[Any] = []

    def keep(width: float, height: float) -> Any:
        made.append(new_figure(width, height))
        return made[-1]

    monkeypatch.setattr(study, "new_figure", keep)
    return made


def panel(title: str, spread: float | None, *, paper: bool = False) -> Panel:
    ours: dict[str, tuple[float, float | None]] = {"a": (50.0, spread), "b": (60.0, spread)}
    return Panel(title, ours, {"a": 83.0, "b": 84.0} if paper else {}, 40.0, "%")


@pytest.mark.parametrize("curve", [False, True])
def test_every_place_of_the_picture_is_used(
    figures: list[Any], tmp_path: Path, curve: bool
) -> None:
    panels = [panel("x", 1.0, paper=True), *(panel(name, 1.0) for name in "yzw")]
    study_picture(["a", "b"], panels, "title", tmp_path / "a.png", curve=curve)
    axes = figures[0].axes
    titles = [each.get_title() for each in axes]
    assert titles == ["x, here", "x, the paper", "y, here", "z, here", "w, here"]
    assert all(each.axison for each in axes)
    widths = [each.get_position().width for each in axes]
    assert widths[-1] > 1.9 * widths[2]
    with Image.open(tmp_path / "a.png") as opened:
        picture = np.asarray(opened.convert("L"))
    height, width = picture.shape
    quarters = [picture[y : y + height // 3, x : x + width // 2] for y in range(0, height - 3, height // 3) for x in (0, width // 2)]  # fmt: skip
    assert all((quarter < 200).mean() > 0.005 for quarter in quarters)


@pytest.mark.parametrize("curve", [False, True])
def test_points_of_one_seed_are_hollow(figures: list[Any], tmp_path: Path, curve: bool) -> None:
    for number, spread in enumerate((1.0, None)):
        study_picture(["a", "b"], [panel("x", spread)], "t", tmp_path / "a.png", curve=curve)
        labels = [text.get_text() for text in figures[number].legends[0].get_texts()]
        (here,) = [axes for axes in figures[number].axes if axes.get_title() == "x, here"]
        fills = {line.get_markerfacecolor() for line in here.lines if line.get_marker() == "o"}
        assert ("white" in fills) is (spread is None)
        assert labels == (["random initialisation"] if spread else ["one seed", "random initialisation"])  # fmt: skip


def test_an_axis_that_starts_at_zero_has_no_break(figures: list[Any], tmp_path: Path) -> None:
    low = Panel("x", {"a": (0.5, 0.1), "b": (1.0, 0.1)}, {}, None, "%")
    for number, each in enumerate((panel("x", 1.0), low)):
        study_picture(["a", "b"], [each], "t", tmp_path / "a.png", curve=False)
        marks = [line for line in figures[number].axes[0].lines if isinstance(line.get_marker(), list)]  # fmt: skip
        assert len(marks) == 1 - number


def test_pictures_of_studies_are_drawn_from_their_tables(tmp_path: Path) -> None:
    for ending in ("csv", "md"):
        shutil.copy(STUDIES / f"mask-ratio.{ending}", tmp_path)
    program = runpy.run_path(str(STUDIES / "pictures.py"))
    program["draw"](tmp_path / "mask-ratio.csv")
    sizes: list[tuple[int, int]] = []
    for folder in (tmp_path, STUDIES):
        with Image.open(folder / "mask-ratio.png") as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[1]


def test_panels_of_a_table() -> None:
    rows = [
        {"variation": "a", "measure": "knn", "draw": "0", "value": "0.5"},
        {"variation": "a", "measure": "knn", "draw": "1", "value": "0.7"},
        {"variation": "b", "measure": "knn", "draw": "0", "value": "0.4"},
        {"variation": "b", "measure": "paper: knn", "draw": "", "value": "83"},
        {"variation": "random initialisation", "measure": "knn", "draw": "0", "value": "0.25"},
        {"variation": "largest class", "measure": "share", "draw": "", "value": "0.1"},
    ]
    names, (found,) = runpy.run_path(str(STUDIES / "pictures.py"))["panels_of"](rows)
    assert names == ["a", "b"]
    assert found.title == "k-NN"
    assert found.ours["a"] == (pytest.approx(60), pytest.approx(200**0.5))
    assert found.ours["b"] == (pytest.approx(40), None)
    assert found.published == {"b": 83.0}
    assert found.random == pytest.approx(25)
