"""The scores in the folder of a run, each with the command that gives it."""

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from unmask.errors import DataError, typed
from unmask.files import read_json
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
    values = _object(folder.results)
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
        values = _object(path)
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


class Best(NamedTuple):
    """The best score of the encoder in a table of scores, and the best one without pretraining."""

    title: str
    encoder: float
    control: float | None
    control_name: str


def best(folder: RunFolder) -> list[Best]:
    """The best scores of each evaluation in the folder, for a summary."""
    found: list[Best] = []
    for path in sorted(folder.evaluations.glob("*.json")):
        scores = _object(path).get("scores")
        pairs = [
            (str(score.get("arm")), float(score["accuracy"]))
            for score in (scores if isinstance(scores, list) else [])
            if isinstance(score, dict) and isinstance(score.get("accuracy"), int | float)
        ]
        encoder = [score for arm, score in pairs if arm == _PRETRAINED]
        control = max(((score, arm) for arm, score in pairs if arm != _PRETRAINED), default=None)
        if encoder:
            score, name = control or (None, "")
            found.append(Best(path.stem, max(encoder), score, name))
    return found


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    with suppress(OSError, DataError):
        values = read_json(path)
        if isinstance(values, dict):
            return values
    return {}


def _value(name: str, value: float) -> str:
    return f"{value:,}" if name in ("images", "left_out") else _percent(value)


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else ""


def _spread(score: dict[str, Any]) -> str:
    spread, draws = score.get("spread"), score.get("accuracies")
    several = isinstance(draws, list) and len(draws) > 1
    return f" ± {spread:.1%}" if several and isinstance(spread, int | float) else ""
