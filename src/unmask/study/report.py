"""From what the runs of a study left in its folder to its table and picture."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from unmask.pictures.study import Panel, sizes_picture, study_picture
from unmask.study.cost import StepCost
from unmask.study.plan import RANDOM, Job, Setting, job_of, questions
from unmask.study.study import Study, Trial, tokenizer_of
from unmask.study.table import NAMES, Found, Line, csv_text, markdown
from unmask.study.verdicts import spread


def collected(
    study: Study,
    trials: Mapping[str, Trial],
    seeds: Sequence[int],
    setting: Setting | None,
    costs: Mapping[str, StepCost],
    root: Path,
    words: Sequence[str],
) -> Found:
    """What is known so far; `words` say what was studied on what."""
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
    return Found(study, len(seeds), words, lines, random)


def _line(study: Study, trial: Trial, runs: Sequence[Job]) -> Line:
    """The scores of the runs of a trial, or of its drawn weights."""
    scores: dict[str, list[float]] = {score: [] for score in study.scores}
    learned: list[float] = []
    failures: list[str] = []
    collapses: list[str] = []
    for run in runs:
        answers = run.answers()
        if "failed" in answers:
            failures.append(f"seed {run.seed}: {answers['failed']}")
        if "collapsed" in answers:
            collapses.append(f"seed {run.seed}: {answers['collapsed']}")
        for asking in questions(study, trial):
            answer = answers.get(asking.key, {})
            if "failed" in answer:
                failures.append(f"seed {run.seed}, {NAMES[asking.score]}: {answer['failed']}")
            if "test" in answer:
                scores[asking.score].append(answer["test"])
            if "train" in answer:
                learned.append(answer["train"])
    return Line(RANDOM, study.base, scores, learned, {}, None, 0.0, failures, collapses)


def write(found: Found, name: str, root: Path) -> list[Path]:
    """The table as Markdown and CSV, and the pictures."""
    page, rows = (root / f"{name}.{ending}" for ending in ("md", "csv"))
    rows.write_text(csv_text(found))
    panels = [panel for score in found.study.scores if (panel := _panel(found, score)).ours]
    if found.study.timed and not found.study.scores:
        panels = [_hours(found)]
    pictures: dict[Path, str] = {}
    if panels:
        pictures[picture := root / f"{name}.png"] = found.study.title
        names = [line.name for line in found.lines]
        study_picture(names, panels, found.study.title, picture, curve=found.study.curve)
    if panels and found.study.sizes is not None:
        pictures[picture := root / f"{name}-sizes.png"] = "Against the size of the encoder"
        sizes_picture(*found.study.sizes, panels, picture)
    shown = "".join(f"\n![{title}]({picture.name})\n" for picture, title in pictures.items())
    page.write_text(markdown(found) + shown)
    return [page, rows, *pictures]


def _hours(found: Found) -> Panel:
    hours = {line.name: (line.hours, 0.0) for line in found.lines if line.cost}
    paper = {
        line.name: line.published["hours"] for line in found.lines if "hours" in line.published
    }
    return Panel("800 epochs of ImageNet-1K", hours, paper, None, "hours")


def _panel(found: Found, score: str) -> Panel:
    ours = {
        line.name: (100 * mean(values), 100 * spread(values))
        for line in found.lines
        if (values := line.scores.get(score))
    }
    paper = {line.name: line.published[score] for line in found.lines if score in line.published}
    drawn = found.random.scores.get(score) if found.random else None
    random = 100 * mean(drawn) if drawn else None
    return Panel(NAMES[score], ours, paper, random, "test accuracy (%)")
