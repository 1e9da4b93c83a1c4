"""The table and pictures of a study, from the results in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from unmask.pictures.study import Panel, sizes_picture, study_picture
from unmask.study.cost import StepCost
from unmask.study.plan import RANDOM, Job, Setting, job_of, measurements
from unmask.study.study import Study, Trial, tokenizer_of
from unmask.study.table import NAMES, Line, StudyResult, csv_text, markdown
from unmask.study.verdicts import spread


def collected(
    study: Study,
    trials: Mapping[str, Trial],
    seeds: Sequence[int],
    setting: Setting | None,
    costs: Mapping[str, StepCost],
    root: Path,
    words: Sequence[str],
) -> StudyResult:
    """All results so far; `words` describe the images and the base."""
    lines: list[Line] = []
    for variation in study.variations:
        trial = trials[variation.name]
        runs = []
        if setting is not None:
            name = variation.name
            runs = [job_of(name, trial, seed, setting, root) for seed in seeds]
        line = _line(study, trial, runs)
        images = 0 if setting is None else len(setting.labelled.train)
        codes, spent = trial.tokenizing, costs.get(tokenizer_of(variation.name))
        lines.append(
            line._replace(
                name=variation.name,
                beside=variation.beside or study.base,
                published=variation.published,
                cost=costs.get(variation.name) if trial.start == "pretrained" else None,
                seen=trial.recipe.epochs * images,
                tokenizer_flops=codes.epochs * images * spent.flops if codes and spent else 0.0,
            )
        )
    random = None
    if setting is not None:
        drawn = replace(trials[study.base], start="drawn")
        runs = [job_of(RANDOM, drawn, seed, setting, root) for seed in seeds]
        random = _line(study, drawn, runs)
    return StudyResult(study, len(seeds), words, lines, random)


def _line(study: Study, trial: Trial, runs: Sequence[Job]) -> Line:
    """The scores of the runs of a trial, or of its random weights."""
    scores: dict[str, list[float]] = {score: [] for score in study.scores}
    train_scores: list[float] = []
    failures: list[str] = []
    collapses: list[str] = []
    for run in runs:
        answers = run.answers()
        if "failed" in answers:
            failures.append(f"seed {run.seed}: {answers['failed']}")
        if "collapsed" in answers:
            collapses.append(f"seed {run.seed}: {answers['collapsed']}")
        for measurement in measurements(study, trial):
            answer = answers.get(measurement.key, {})
            if "failed" in answer:
                failures.append(f"seed {run.seed}, {NAMES[measurement.score]}: {answer['failed']}")
            if "test" in answer:
                scores[measurement.score].append(answer["test"])
            if "train" in answer:
                train_scores.append(answer["train"])
    return Line(
        name=RANDOM,
        beside=study.base,
        scores=scores,
        train_scores=train_scores,
        published={},
        cost=None,
        seen=0.0,
        failures=failures,
        collapses=collapses,
    )


def write(result: StudyResult, name: str, root: Path) -> list[Path]:
    """The table as Markdown and CSV, and the pictures."""
    page, rows = (root / f"{name}.{ending}" for ending in ("md", "csv"))
    rows.write_text(csv_text(result))
    panels = [panel for score in result.study.scores if (panel := _panel(result, score)).ours]
    if result.study.timed and not result.study.scores:
        panels = [_hours(result)]
    pictures: dict[Path, str] = {}
    if panels:
        pictures[picture := root / f"{name}.png"] = result.study.title
        names = [line.name for line in result.lines]
        study_picture(names, panels, result.study.title, picture, curve=result.study.curve)
    if panels and result.study.sizes is not None:
        pictures[picture := root / f"{name}-sizes.png"] = "Against the size of the encoder"
        sizes_picture(*result.study.sizes, panels, picture)
    shown = "".join(f"\n![{title}]({picture.name})\n" for picture, title in pictures.items())
    page.write_text(markdown(result) + shown)
    return [page, rows, *pictures]


def _hours(result: StudyResult) -> Panel:
    hours = {line.name: (line.hours, 0.0) for line in result.lines if line.cost}
    paper = {
        line.name: line.published["hours"] for line in result.lines if "hours" in line.published
    }
    return Panel("800 epochs of ImageNet-1K", hours, paper, None, "hours")


def _panel(result: StudyResult, score: str) -> Panel:
    ours = {
        line.name: (100 * mean(values), 100 * spread(values))
        for line in result.lines
        if (values := line.scores.get(score))
    }
    paper = {line.name: line.published[score] for line in result.lines if score in line.published}
    drawn = result.random.scores.get(score) if result.random else None
    random = 100 * mean(drawn) if drawn else None
    return Panel(NAMES[score], ours, paper, random, "test accuracy (%)")
