"""The scores of a series of runs: a table, sentences on what pretraining gains, and a CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.console.output import console
from unmask.evaluation.frozen import PRETRAINED, SCRATCH
from unmask.files import write_text
from unmask.measures import Scored
from unmask.runs.folder import RunFolder
from unmask.runs.results import read_results
from unmask.study.table import differ, percent


class Member(NamedTuple):
    """One run of a series."""

    amount: str
    """The amount of labels."""
    seed: int
    arm: str
    """Pretrained, or from scratch."""

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.amount.replace('%', 'pct')}-seed{self.seed}-{self.arm.replace(' ', '-')}"

    @property
    def words(self) -> str:
        """What it is, in words."""
        return f"labels {self.amount}, seed {self.seed}, {self.arm}"


Figures = dict[str, float]
"""Scores from 0 to 1 by their measure."""


def figures_of(folder: RunFolder, score_types: tuple[type[Scored], ...]) -> Figures:
    """The measures of a finished run that have a value without training to be compared with; empty for others."""
    results = read_results(folder, score_types)
    if results is None:
        return {}
    return {
        measure.name: measure.value
        for measure in results.score.measures()
        if measure.baseline is not None and measure.value is not None
    }


def in_words(figures: Figures) -> str:
    """Scores in one line."""
    return ", ".join(f"{name} {value:.1%}" for name, value in figures.items())


def say_table(scores: Mapping[Member, Figures], images: Mapping[str, int]) -> None:
    """Print mean and deviation over the seeds for each amount of labels, and what pretraining gains."""
    measures = list(dict.fromkeys(name for figures in scores.values() for name in figures))
    if not measures:
        console.result("no run has a score; are there objects in the test images?")
        return
    table = Table("labels", "images", "encoder", box=SIMPLE_HEAD, pad_edge=False)
    for measure in measures:
        table.add_column(f"{measure}, %", justify="right", no_wrap=True)
    for amount, count in images.items():
        for arm in dict.fromkeys(member.arm for member in scores):
            cells = [percent(_values(scores, amount, arm, measure)) for measure in measures]
            table.add_row(amount, f"{count:,}", arm, *cells)
    console.result(table)
    seeds = len({member.seed for member in scores})
    if seeds > 1:
        console.result(f"mean ± standard deviation over {seeds} seeds")
    for amount in images:
        pairs = [_values(scores, amount, arm, measures[0]) for arm in (PRETRAINED, SCRATCH)]
        if all(pairs):
            console.result(f"verdict   labels {amount}: {_verdict(measures[0], *pairs)}")


def _values(scores: Mapping[Member, Figures], amount: str, arm: str, measure: str) -> list[float]:
    """The scores over the seeds."""
    return [
        figures[measure]
        for member, figures in scores.items()
        if (member.amount, member.arm) == (amount, arm) and measure in figures
    ]


def _verdict(measure: str, pretrained: Sequence[float], scratch: Sequence[float]) -> str:
    """What pretraining gains, and whether the seeds show it."""
    gain = 100 * (mean(pretrained) - mean(scratch))
    words = f"{gain:+.1f} points of {measure} by pretraining"
    if min(len(pretrained), len(scratch)) < 2:
        return f"{words}; one seed does not allow a conclusion"
    if not differ(pretrained, scratch):
        return f"{words}, within the noise of the seeds (Welch's test at 5 %)"
    return f"{words}, {'a gain' if gain > 0 else 'worse'} beyond the noise of the seeds (Welch's test at 5 %)"


def write_scores(scores: Mapping[Member, Figures], images: Mapping[str, int], path: Path) -> None:
    """Write every score as CSV: a row for each run and measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["labels", "images", "seed", "encoder", "measure", "value"])
    for member, figures in scores.items():
        for measure, value in figures.items():
            row = [member.amount, images[member.amount], member.seed, member.arm]
            writer.writerow([*row, measure, f"{value:.6g}"])
    write_text(path, text.getvalue())
