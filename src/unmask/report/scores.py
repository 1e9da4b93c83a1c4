"""The scores in the folder of a run, each with the command that gives it."""

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from unmask.errors import RunError, typed
from unmask.files import read_object, told_apart
from unmask.measures import Measure, ScoreTable, cell_words
from unmask.runs.folder import RunFolder
from unmask.runs.results import read_results
from unmask.runs.run import Run
from unmask.traits import Tabular

_SHOWN = 20  # images set aside
_PRETRAINED = "pretrained"
_CLASSES = 30  # in the table of classes


class Table(NamedTuple):
    """Scores from a file, and the command that gives them."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    command: str
    note: str = ""
    """What is said below the table."""


class SetAside(NamedTuple):
    """The images that could not be used."""

    total: int
    first: list[tuple[str, str]]
    """Names and reasons of the first ones."""


def set_aside(folder: RunFolder) -> SetAside:
    """The images that were skipped, from `set_aside.csv`."""
    if not folder.set_aside.exists():
        return SetAside(0, [])
    with folder.set_aside.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        next(rows, None)  # the headings
        first: list[tuple[str, str]] = []
        count = 0
        for row in rows:
            count += 1
            if len(first) < _SHOWN and len(row) > 1:
                first.append((row[0], row[1]))
    return SetAside(count, first)


def results(run: Run, folder: RunFolder, command: str) -> list[Table]:
    """The score at the end of a run, and that of each class; nothing before the end, or for runs without a score.

    Raises:
        RunError: see `read_results`.
    """
    found = read_results(folder, run.job.score_types)
    if found is None:
        return []
    rows = [[one.name, one.words, one.baseline_words] for one in found.score.measures()]
    if found.left_out:
        rows.append(["test images that could not be read", f"{found.left_out:,}", ""])
    headings = ["measure", "value", "for comparison"]
    tables = [Table("Score on test images", headings, rows, command)]
    if isinstance(found.score, Tabular):
        tables.append(_classes(found.score.table()))
    return tables


def _classes(scores: ScoreTable) -> Table:
    """A row for each class, of many classes the weakest."""
    shown = scores.weakest(_CLASSES)
    rows = [[cell_words(cell) for cell in row] for row in [*shown, scores.mean()]]
    less = len(shown) < len(scores.rows)
    note = (
        f"The {len(shown)} of {len(scores.rows):,} classes with the lowest {scores.ranked_by}; classes.csv lists all."
        if less
        else ""
    )
    return Table("Scores of each class", list(scores.headings), rows, "", note)


def evaluations(folder: RunFolder) -> list[Table]:
    """The tables of `unmask evaluate` that lie in the folder."""
    tables: list[Table] = []
    for path in sorted(folder.evaluations.glob("*.json")):
        values = read_object(path)
        scores = values.get("scores")
        if isinstance(scores, list) and all(isinstance(score, dict) for score in scores):
            tables.append(_evaluation(folder, path, values, scores))
        several = values.get("encoders")
        for one in several if isinstance(several, list) else [values]:
            if isinstance(one, dict) and isinstance(one.get("models"), list):
                tables.append(_corrupted(path, one))
    return tables


def _evaluation(
    folder: RunFolder, path: Path, values: dict[str, Any], scores: list[dict[str, Any]]
) -> Table:
    data = str(values.get("data", ""))
    command = str(values.get("command") or "")
    rows = [
        [
            str(score.get("arm", "")),
            str(score.get("protocol", "")),
            str(score.get("feature", "")),
            str(score.get("vectors", "")),
            str(score.get("labels", "")),
            _percent(score.get("accuracy")) + _spread(score),
        ]
        for score in scores
    ]
    chance = _percent(values.get("chance"))
    rows.append(["guessing", "", "", "", "", chance])
    test = values.get("test_images", 0)
    step = f" at step {values['step']:,}" if isinstance(values.get("step"), int) else ""
    return Table(
        f"{path.stem}{step}, {test:,} test images of {data}",
        [
            "encoder",
            "protocol",
            "feature",
            "vectors",
            "labels",
            str(values.get("measure", "score")),
        ],
        rows,
        command or typed("evaluate", folder.root, data, "--protocol", path.stem.split("-")[0]),
    )


def _corrupted(path: Path, values: dict[str, Any]) -> Table:
    """The accuracies of `unmask evaluate --corrupt`: a row for each corruption, a column for each model."""
    models = [one for one in values["models"] if isinstance(one, dict)]
    names = told_apart([Path(str(one.get("model", ""))) for one in models])
    corrupted = [_object(one.get("corrupted")) for one in models]
    rows = [
        [name, *(_percent(_mean(each.get(name))) for each in corrupted)]
        for name in dict.fromkeys(name for each in corrupted for name in each)
    ]
    rows.append(["mean", *(_percent(one.get("mean")) for one in models)])
    rows.append(["as they are", *(_percent(one.get("clean")) for one in models)])
    control = values.get("control")
    if control is not None:
        # the control's own errors are those that the others are measured by
        shares = (
            1.0 if one.get("model") == control else one.get("relative_errors") for one in models
        )
        rows.append([f"mCE beside {control}", *(_number(share) for share in shares)])
    return Table(
        f"{path.stem}, {values.get('test_images', 0):,} test images of {values.get('data', '')}",
        [f"{values.get('measure', 'score')}, mean of five severities", *names],
        rows,
        str(values.get("command") or ""),
    )


def measures(run: Run, folder: RunFolder) -> dict[str, Measure]:
    """By their names the measures of a run's own score, and the best score of its encoder in each evaluation."""
    found: dict[str, Measure] = {}
    with suppress(RunError):
        own = read_results(folder, run.job.score_types)
        found |= {} if own is None else {one.name: one for one in own.score.measures()}
    for path in sorted(folder.evaluations.glob("*.json")):
        values = read_object(path)
        best = max((score for score, arm in _pairs(values) if arm == _PRETRAINED), default=None)
        name = f"{path.stem}, {values.get('measure', 'score')}"
        if best is not None:
            found[name] = Measure(name, best)
    return found


class Judgement(NamedTuple):
    """What an evaluation says of the encoder, compared with what is not pretrained."""

    title: str
    outcome: str
    """better, worse, or other words where neither is shown."""
    words: str


def judgements(folder: RunFolder) -> list[Judgement]:
    """What each evaluation in the folder says: its own verdicts, or the best score beside the best control."""
    found: list[Judgement] = []
    for path in sorted(folder.evaluations.glob("*.json")):
        values = read_object(path)
        own = values.get("verdicts")
        verdicts = [
            Judgement(path.stem, str(one.get("outcome", "")), str(one["words"]))
            for one in (own if isinstance(own, list) else [])
            if isinstance(one, dict) and "words" in one
        ]
        found += verdicts or _compared(path.stem, values)
    return found


def _compared(title: str, values: dict[str, Any]) -> list[Judgement]:
    """The best score of the encoder beside the best control; nothing without scores."""
    measure, pairs = str(values.get("measure", "score")), _pairs(values)
    encoder = max((score for score, arm in pairs if arm == _PRETRAINED), default=None)
    if encoder is None:
        return []
    control = max((pair for pair in pairs if pair[1] != _PRETRAINED), default=None)
    if control is None:
        return [Judgement(title, "", f"{measure} {encoder:.1%} at best")]
    points = 100 * (encoder - control[0])
    outcome, word = ("better", "above") if points > 0 else ("worse", "below")
    words = f"{measure} {encoder:.1%} at best, {abs(points):.1f} points {word} {control[1]} ({control[0]:.1%})"
    return [Judgement(title, outcome, words)]


def _pairs(values: dict[str, Any]) -> list[tuple[float, str]]:
    """The scores of an evaluation, each with its arm."""
    scores = values.get("scores")
    return [
        (float(score["accuracy"]), str(score.get("arm")))
        for score in (scores if isinstance(scores, list) else [])
        if isinstance(score, dict) and isinstance(score.get("accuracy"), int | float)
    ]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mean(values: Any) -> float | None:
    return sum(values) / len(values) if isinstance(values, list) and values else None


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "-"


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else ""


def _spread(score: dict[str, Any]) -> str:
    spread, draws = score.get("spread"), score.get("accuracies")
    several = isinstance(draws, list) and len(draws) > 1
    return f" ± {spread:.1%}" if several and isinstance(spread, int | float) else ""
