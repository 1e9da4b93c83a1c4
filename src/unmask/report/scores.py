"""The scores in the folder of a run, each with the command that gives it."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

from unmask.errors import typed
from unmask.files import read_object
from unmask.runs.folder import RunFolder

_SHOWN = 20  # images set aside
_PRETRAINED = "pretrained"
_SCORES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "balanced": "balanced accuracy",
    "mean_average_precision": "mean average precision",
    "f1": "macro F1",
    "majority": "share of the largest class",
    "chance": "guessing",
    "images": "test images",
    "left_out": "test images that could not be read",
}
"""The fields of `results.json` that are shown, and their words; the file has more."""


class Table(NamedTuple):
    """Scores from a file, and the command that gives them."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    command: str
    path: Path


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


def results(folder: RunFolder, command: str) -> Table | None:
    """The score at the end of a run that has one; None before, or for runs without a score."""
    values = read_object(folder.results)
    rows = [
        [words, _value(name, values[name])]
        for name, words in _SCORES.items()
        if isinstance(values.get(name), int | float)
    ]
    if not rows:
        return None
    return Table("Score on test images", ["figure", "value"], rows, command, folder.results)


def evaluations(folder: RunFolder) -> list[Table]:
    """The tables of `unmask evaluate` that lie in the folder."""
    tables: list[Table] = []
    for path in sorted(folder.evaluations.glob("*.json")):
        values = read_object(path)
        scores = values.get("scores")
        if isinstance(scores, list) and all(isinstance(score, dict) for score in scores):
            tables.append(_evaluation(folder, path, values, scores))
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
        path,
    )


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
        found += verdicts or _compared(path.stem, values.get("scores"))
    return found


def _compared(title: str, scores: Any) -> list[Judgement]:
    """The best score of the encoder beside the best control; nothing without scores."""
    pairs = [
        (float(score["accuracy"]), str(score.get("arm")))
        for score in (scores if isinstance(scores, list) else [])
        if isinstance(score, dict) and isinstance(score.get("accuracy"), int | float)
    ]
    encoder = max((score for score, arm in pairs if arm == _PRETRAINED), default=None)
    if encoder is None:
        return []
    control = max((pair for pair in pairs if pair[1] != _PRETRAINED), default=None)
    if control is None:
        return [Judgement(title, "", f"{encoder:.1%} at best")]
    points = 100 * (encoder - control[0])
    outcome, word = ("better", "above") if points > 0 else ("worse", "below")
    words = (
        f"{encoder:.1%} at best, {abs(points):.1f} points {word} {control[1]} ({control[0]:.1%})"
    )
    return [Judgement(title, outcome, words)]


def _value(name: str, value: float) -> str:
    return f"{value:,}" if name in ("images", "left_out") else _percent(value)


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else ""


def _spread(score: dict[str, Any]) -> str:
    spread, draws = score.get("spread"), score.get("accuracies")
    several = isinstance(draws, list) and len(draws) > 1
    return f" ± {spread:.1%}" if several and isinstance(spread, int | float) else ""
