"""The scores of each class: a table, a CSV file, the confusion matrix, and a sheet of the surest mistakes."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.console.screen import console, notes
from unmask.pictures.drawing import drawn
from unmask.pictures.figure import confusion_picture
from unmask.pictures.sheet import Row, save_sheet, sheet
from unmask.runs.job import Picture
from unmask.tasks.task import ScoreOfClasses

_SHOWN = 20  # classes in the table


class ClassFiles(NamedTuple):
    """Where the scores of classes are written."""

    table: Path
    """CSV with precision, recall and F1 of each class."""
    confusion: Path
    """PNG of the confusion matrix."""
    mistakes: Path
    """PNG of the surest mistakes."""


def say_classes(score: ScoreOfClasses, file: Path | None) -> None:
    """Print precision, recall and F1 of each class; of many classes those with the lowest F1."""
    classes = sorted(score.by_class, key=lambda one: one.f1)[:_SHOWN]
    classes = [one for one in score.by_class if one in classes]
    table = Table("class", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("images", "precision", "recall", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in classes:
        figures = (f"{value:.1%}" for value in (one.precision, one.recall, one.f1))
        table.add_row(one.name, f"{one.images:,}", *figures)
    tested = [one for one in score.by_class if one.images]
    means = (
        np.mean([getattr(one, name) for one in tested]) for name in ("precision", "recall", "f1")
    )
    table.add_section()
    table.add_row(
        "mean of classes",
        f"{sum(one.images for one in tested):,}",
        *(f"{mean:.1%}" for mean in means),
    )
    console.result(table)
    if len(classes) < len(score.by_class):
        where = f"; all are in {file}" if file else ""
        console.print(
            f"the {len(classes)} of {len(score.by_class)} classes with the lowest F1{where}"
        )


def write_classes(score: ScoreOfClasses, path: Path) -> Path:
    """Write images, precision, recall and F1 of each class as CSV."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "images", "precision", "recall", "f1"])
        for one in score.by_class:
            figures = (f"{value:.6g}" for value in (one.precision, one.recall, one.f1))
            writer.writerow([one.name, one.images, *figures])
    return path


def draw_confusion(
    counts: NDArray[np.int64], names: tuple[str, ...], title: str, path: Path
) -> list[Path]:
    """Draw the confusion matrix [true predicted]; returns the file, or nothing if it cannot be drawn."""
    return _noted(path, drawn(path, lambda file: confusion_picture(counts, names, title, file)))


def draw_mistakes(pictures: Sequence[Picture], path: Path) -> list[Path]:
    """Draw the surest mistakes; returns the file, or nothing if there are none or they cannot be drawn."""
    if not pictures:
        path.unlink(missing_ok=True)  # that of an earlier call
        return []
    rows = [Row(one.versions, one.name) for one in pictures]
    page = "surest mistakes: true class, predicted class and its probability"
    return _noted(path, drawn(path, lambda file: save_sheet(sheet([page], rows, []), file)))


def _noted(path: Path, note: str) -> list[Path]:
    if note:
        notes.note(note)
    return [] if note else [path]
