"""The scores of each class: a table, a CSV file, the confusion matrix, and a sheet of the surest mistakes."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.annotations import AnyAnnotations
from unmask.console.screen import console, notes
from unmask.pictures.drawing import drawn
from unmask.pictures.figure import confusion_picture
from unmask.pictures.sheet import Row, save_sheet, sheet
from unmask.runs.examples import Example, example_sheet
from unmask.runs.job import Picture
from unmask.tasks.task import ScoreOfClasses
from unmask.traits import Tabular

_SHOWN = 20  # classes in the table


class ClassFiles(NamedTuple):
    """Where the scores of classes are written."""

    table: Path
    """CSV with precision, recall and F1 of each class."""
    confusion: Path
    """PNG of the confusion matrix."""
    mistakes: Path
    """PNG of the surest mistakes."""
    predictions: Path | None = None
    """PNG of test images with what was located in them, of dense tasks."""


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


def say_table(score: Tabular, file: Path | None) -> None:
    """Print the table of a score; of many rows the first."""
    header, *rows = score.table()
    table = Table(header[0], box=SIMPLE_HEAD, pad_edge=False)
    for name in header[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:_SHOWN]:
        table.add_row(*row)
    console.result(table)
    if len(rows) > _SHOWN:
        where = f"; all are in {file}" if file else ""
        console.print(f"the first {_SHOWN} of {len(rows)} rows{where}")


def write_table(score: Tabular, path: Path) -> Path:
    """Write the table of a score as CSV."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows(score.table())
    return path


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


def draw_examples(examples: Sequence[Example], kind: AnyAnnotations, path: Path) -> list[Path]:
    """Draw test images beside annotations and predictions; returns the file, or nothing if it cannot be drawn."""
    if not examples:
        return []
    return _noted(path, drawn(path, lambda file: save_sheet(example_sheet(examples, kind), file)))


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
