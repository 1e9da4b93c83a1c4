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
from unmask.measures import cell_words
from unmask.pictures.drawing import drawn
from unmask.pictures.figure import confusion_picture
from unmask.pictures.sheet import Row, save_sheet, sheet
from unmask.runs.examples import Example, example_sheet
from unmask.runs.job import Picture
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


def say_table(score: Tabular, file: Path | None) -> None:
    """Print the scores of each class, of many classes the weakest, and their means."""
    scores = score.table()
    rows = scores.weakest(_SHOWN)
    table = Table(scores.headings[0], box=SIMPLE_HEAD, pad_edge=False)
    for name in scores.headings[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(cell_words, row))
    table.add_section()
    table.add_row(*map(cell_words, scores.mean()))
    console.result(table)
    if len(rows) < len(scores.rows):
        where = f"; all are in {file}" if file else ""
        console.print(
            f"the {len(rows)} of {len(scores.rows)} classes with the lowest {scores.ranked_by}{where}"
        )


def write_table(score: Tabular, path: Path) -> Path:
    """Write the scores of each class as CSV; a score that is not defined is empty."""
    scores = score.table()
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(scores.headings)
        for row in scores.rows:
            writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
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
