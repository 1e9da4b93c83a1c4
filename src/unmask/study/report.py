"""The table and pictures of a study, from the results in its folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np

from unmask.annotations import is_dense
from unmask.contracts import ImageSource
from unmask.files import write_text
from unmask.pictures.drawing import drawn
from unmask.pictures.study import Panel, sizes_picture, study_picture
from unmask.study.dense import measure_of
from unmask.study.plan import RANDOM, Job, Measurement, Plan, Setting, job_of, measurements
from unmask.study.study import Published, Trial, tokenizer_of
from unmask.study.table import NAMES, Line, StudyResult, csv_text, markdown, spread


def collected(plan: Plan, setting: Setting | None) -> StudyResult:
    """All results so far; no scores without a setting."""
    study, trials, costs = plan.study, plan.trials, plan.costs if plan.study.timed else {}
    images = 0 if setting is None else len(setting.labelled.train)

    def line(
        name: str,
        trial: Trial,
        beside: str,
        published: Published,
        published_epochs: Mapping[str, int],
    ) -> Line:
        codes, spent = trial.tokenizing, costs.get(tokenizer_of(name))
        empty = Line(
            name=name,
            beside=beside,
            scores={score: [] for score in study.scores},
            train_scores=[],
            published=published,
            published_epochs=published_epochs,
            cost=costs.get(name) if trial.start == "pretrained" else None,
            seen=trial.recipe.epochs * images if trial.start == "pretrained" else 0.0,
            failures=[],
            collapses=[],
            tokenizer_flops=codes.epochs * images * spent.flops if codes and spent else 0.0,
        )
        if setting is not None:
            for seed in plan.seeds:
                run = job_of(name, trial, seed, setting, plan.root)
                _fill(empty, run, measurements(study, trial))
        return empty

    lines = [
        line(
            each.name,
            trials[each.name],
            each.beside or study.base,
            each.published,
            each.published_epochs,
        )
        for each in study.variations
    ]
    random = None
    if setting is not None:
        random = line(RANDOM, replace(trials[study.base], start="drawn"), study.base, {}, {})
    seeds, words = len(plan.seeds), plan.words
    if setting is None:
        return StudyResult(study, seeds, words, lines, random, None)
    test = setting.labelled.test
    majority, measure = _majority(test), measure_of(test.annotations)
    return StudyResult(study, seeds, words, lines, random, majority, measure)


def _majority(test: ImageSource) -> float | None:
    """The share of the most frequent class; None where images have more than a class."""
    if is_dense(test.annotations):
        return None
    labels = test.labels()
    return float(np.bincount(labels).max() / len(labels))


def _fill(line: Line, run: Job, wanted: Sequence[Measurement]) -> None:
    """Add the results of a run to its line."""
    answers = run.answers()
    if "failed" in answers:
        line.failures.append(f"seed {run.seed}: {answers['failed']}")
    if "collapsed" in answers:
        line.collapses.append(f"seed {run.seed}: {answers['collapsed']}")
    for measurement in wanted:
        name, answer = NAMES[measurement.score], answers.get(measurement.key, {})
        if "failed" in answer:
            line.failures.append(f"seed {run.seed}, {name}: {answer['failed']}")
        if "test" in answer:
            line.scores[measurement.score].append(answer["test"])
        if "train" in answer:
            line.train_scores.append(answer["train"])


def write(result: StudyResult, name: str, root: Path, tell: Callable[[str], object]) -> list[Path]:
    """Write the table as Markdown and CSV, and the pictures; `tell` gets a note for each that cannot be drawn."""
    page, rows = (root / f"{name}.{ending}" for ending in ("md", "csv"))
    write_text(rows, csv_text(result))
    panels = [panel for score in result.study.scores if (panel := _panel(result, score)).ours]
    if result.study.timed and not result.study.scores:
        panels = [_hours(result)]
    pictures: dict[Path, str] = {}

    def add(picture: Path, title: str, draw: Callable[[Path], object]) -> None:
        if note := drawn(picture, draw):
            tell(note)
        else:
            pictures[picture] = title

    title, sizes = result.study.title, result.study.sizes
    names = [line.name for line in result.lines]
    if panels:
        draw = partial(study_picture, names, panels, title, curve=result.study.curve)
        add(root / f"{name}.png", title, draw)
    if panels and sizes is not None:
        draw = partial(sizes_picture, *sizes, panels)
        add(root / f"{name}-sizes.png", "Against the size of the encoder", draw)
    shown = "".join(f"\n![{title}]({picture.name})\n" for picture, title in pictures.items())
    write_text(page, markdown(result) + shown)
    return [page, rows, *pictures]


def _hours(result: StudyResult) -> Panel:
    hours = {line.name: (line.hours, 0.0) for line in result.lines if line.cost}
    paper = {
        line.name: line.published["hours"] for line in result.lines if "hours" in line.published
    }
    return Panel("800 epochs of ImageNet-1K", hours, paper, None, "hours")


def _panel(result: StudyResult, score: str) -> Panel:
    paper = {line.name: line.published[score] for line in result.lines if score in line.published}
    ours = {line.name: values for line in result.lines if (values := line.scores.get(score))}
    drawn = result.random.scores.get(score) if result.random else None
    return panel_of(score, ours, paper, drawn, result.measure)


def panel_of(
    score: str,
    ours: Mapping[str, Sequence[float]],
    paper: Mapping[str, float],
    drawn: Sequence[float] | None,
    measure: str,
) -> Panel:
    """A panel of a score in per cent, from the values of every seed, from 0 to 1; `drawn` are those of random weights."""
    means = {
        name: (100 * mean(values), 100 * spread(values) if len(values) > 1 else None)
        for name, values in ours.items()
    }
    random = 100 * mean(drawn) if drawn else None
    return Panel(NAMES[score], means, paper, random, f"test {measure} (%)")
