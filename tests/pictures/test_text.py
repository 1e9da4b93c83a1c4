"""Any name can be drawn: in plots and on sheets, without a warning."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unmask.pictures.accuracy import Bar, Line, Point, accuracy_bars, accuracy_curves
from unmask.pictures.drawing import drawn
from unmask.pictures.figure import confusion_picture, loss_curve
from unmask.pictures.sheet import Row, sheet
from unmask.pictures.study import Panel, study_picture
from unmask.pictures.text import drawable, plot_text

CYRILLIC = "кошки"
UNDECODED = CYRILLIC.encode().decode("ascii", "surrogateescape")
"""The same name as Python reads it where the locale is ASCII."""

NAMES = (
    CYRILLIC,
    UNDECODED,
    "猫",
    "\ud800",
    "\udcff",
    "a\nb",
    "$x^{$",
    r"\frac",
    "\0",
    "a_b",
    "😀",
    "%",
    "{}",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mae-b16, 75.0 %", "mae-b16, 75.0 %"),
        (CYRILLIC, CYRILLIC),
        (UNDECODED, CYRILLIC),
        ("±…", "±…"),
        ("猫1", r"\u732b1"),
        ("\udcff", r"\xff"),
        ("\ud800", r"\ud800"),
        ("a\nb\0", r"a\nb\x00"),
        ("\u202egnp", r"\u202egnp"),
    ],
)
def test_drawable(text: str, expected: str) -> None:
    assert drawable(text) == expected


def test_dollars_are_no_formula_in_a_plot() -> None:
    assert plot_text("$x$") == r"\$x\$"


def test_plots_take_any_name(tmp_path: Path) -> None:
    """matplotlib warns of a letter that it cannot draw, and warnings are errors here."""
    points = [Point(0.5, 0.1)]
    title = " ".join(NAMES)
    one, picture = tmp_path / "one.png", tmp_path / "picture.png"
    confusion_picture(np.eye(len(NAMES), dtype=np.int64), NAMES, title, one)
    accuracy_bars(
        [Bar(name, name, points[0], False) for name in NAMES], "top-1", 0.1, title, picture
    )
    lines = [Line(name, points * len(NAMES), False) for name in NAMES]
    accuracy_curves(NAMES, lines, [], "top-1", 0.1, "x", title, picture)
    panel = Panel(title, dict.fromkeys(NAMES, (50.0, 1.0)), {}, None, "%")
    study_picture(NAMES, [panel], title, picture, curve=False)
    loss_curve([{"step": 1.0, "loss": 1.0}], picture, title)
    assert one.stat().st_size > 1000


def test_a_sheet_takes_any_name() -> None:
    rows = [Row([torch.zeros(1, 4, 4)], name) for name in NAMES]
    page = sheet(["original"], rows, list(NAMES))
    assert page.height > 128 * len(NAMES)


def test_cyrillic_captions_differ() -> None:
    """They are letters, not one box for each."""
    one, other = (
        sheet(["original"], [Row([torch.zeros(1, 4, 4)], name)], []) for name in ("кот", "пёс")
    )
    assert one.size != other.size or one.tobytes() != other.tobytes()


def test_an_error_of_drawing_is_a_note(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError

    assert drawn(tmp_path / "a.png", lambda path: path.write_text("")) == ""
    assert drawn(tmp_path / "b.png", fail).startswith(
        f"{tmp_path / 'b.png'} could not be drawn (RuntimeError)"
    )
