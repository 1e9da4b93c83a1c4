"""The output of `unmask evaluate`: tables, JSON, Markdown and pictures of scores."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.table import Table

from unmask.console.output import console, duration, notes, writing
from unmask.data.in_order import Unreadable
from unmask.evaluation.features import features_folder
from unmask.evaluation.frozen import PRETRAINED, RANDOM, SCRATCH, Row
from unmask.evaluation.protocols import Question, Subject
from unmask.files import write_text
from unmask.objectives import AnyObjective
from unmask.pictures.accuracy import (
    Bar,
    Line,
    Point,
    accuracy_bars,
    accuracy_by_size,
    accuracy_curves,
    millions,
)
from unmask.pictures.drawing import drawn
from unmask.runs.folder import RunFolder
from unmask.runs.run import parameter_count
from unmask.runs.weights import shape_of
from unmask.spec import kind_of
from unmask.tasks.classify import Accuracy

_FEATURES = {
    "cls": "class token",
    "mean": "mean of patches",
    "patches": "patch tokens",
    "0": "0 blocks trained",
    "half": "half a block trained",
    "1": "1 block trained",
    "all": "all blocks trained",
}
_CONTROLS = {
    RANDOM: "the same encoder with random weights, treated in the same way; frozen parts stay random",
    SCRATCH: "all blocks trained from random weights, with the same learning rate in all layers",
}
_FOLDER = "evaluations"


class Judged(NamedTuple):
    """The scores of an encoder."""

    question: Question
    subject: Subject
    data: str
    rows: list[Row]
    counts: tuple[int, int]
    """Number of training images and of test images."""
    unreadable: Unreadable

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.subject.labelled.train.annotations.names)

    @property
    def chance(self) -> float:
        """The score of random guessing."""
        return self.rows[0].scores[0].chance

    @property
    def majority(self) -> float | None:
        """The score of always answering the largest class; None for scores that do not say it."""
        score = self.rows[0].scores[0]
        return score.majority if isinstance(score, Accuracy) else None

    @property
    def measure(self) -> str:
        """The name of the scores, such as top-1."""
        return self.rows[0].scores[0].measure

    @property
    def parameters(self) -> int:
        """Parameters of the encoder."""
        return parameter_count(self.subject.model.encoder)

    @property
    def method(self) -> str:
        """The method that made the weights, as far as they say."""
        model, folder = self.subject.model, RunFolder(self.subject.path)
        objective = model.objective_spec
        if objective is not None:
            return kind_of(AnyObjective, objective)
        return "fine-tuned" if folder.made_by("finetune") else Path(self.subject.path).stem

    def result(self) -> dict[str, Any]:
        """All figures, for JSON."""
        model = self.subject.model
        return {
            "run": self.subject.path,
            "weights": model.about,
            "step": model.step,
            "method": self.method,
            "parameters": self.parameters,
            "shape": shape_of(model.spec.encoder),
            "data": self.data,
            "split": self.subject.labelled.split,
            "train_images": self.counts[0],
            "test_images": self.counts[1],
            "classes": self.classes,
            "measure": self.measure,
            "chance": self.chance,
            "largest_class": self.majority,
            "left_out": len(self.unreadable),
            "scores": [_figures(row) for row in self.rows],
        }

    @property
    def title(self) -> str:
        """Title of a picture."""
        model = self.subject.model
        return f"{self.question.protocol} on {_short(self.data)}: {model.about}, {millions(self.parameters)}"


def _figures(row: Row) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "protocol": row.protocol,
        "feature": row.feature,
        "labels": row.labels,
        "accuracy": row.mean,
        "spread": row.spread,
        "accuracies": row.values,
        **_balanced(row),
        "setting": row.setting,
        "seconds": round(row.seconds, 3),
        "images_per_second": round(row.images_per_second, 1),
        "features": row.source,
    }


def _balanced(row: Row) -> dict[str, float]:
    """The mean balanced accuracy over the draws; empty for scores without one."""
    balanced = [score.balanced for score in row.scores if isinstance(score, Accuracy)]
    return {"balanced_accuracy": sum(balanced) / len(balanced)} if balanced else {}


def say_scores(judged: Judged) -> None:
    """Print the scores of an encoder."""
    result = judged.result()
    console.print(
        f"{result['run']} ({result['weights']}; {result['shape']}, {millions(judged.parameters)} parameters) on "
        f"{judged.data}: {result['train_images']:,} training images, {result['test_images']:,} test images "
        f"({result['split']}), {judged.classes} classes"
    )
    table = Table("encoder", "protocol", "feature", "labels", judged.measure, "balanced")
    for row in judged.rows:
        balanced = "".join(f"{share:.1%}" for share in _balanced(row).values())
        table.add_row(
            row.arm, row.protocol, _feature(row.feature), row.labels, _percent(row), balanced
        )
    table.add_row("chance", "", "", "", f"{judged.chance:.1%}", "")
    if judged.majority is not None:
        table.add_row("largest class", "", "", "", f"{judged.majority:.1%}", f"{judged.chance:.1%}")
    console.print(table)
    for arm in dict.fromkeys(row.arm for row in judged.rows):
        if arm in _CONTROLS:
            console.print(f"{arm}: {_CONTROLS[arm]}")
    for setting in dict.fromkeys(row.setting for row in judged.rows):
        console.print(f"setting: {setting}")
    _say_time(judged)
    if judged.unreadable:
        name, reason = judged.unreadable[0]
        console.print(
            f"{len(judged.unreadable)} unreadable images skipped; the first is {name}: {reason}"
        )


def _say_time(judged: Judged) -> None:
    """Print time, speed, the origin of the features and the number of draws."""
    frozen = {row.arm: row for row in judged.rows if row.source != "trained"}
    trained = [row for row in judged.rows if row.source == "trained"]
    at_once = {(row.arm, row.labels): row.seconds for row in judged.rows if row not in trained}
    seconds = duration(sum(at_once.values()) + sum(row.seconds for row in trained))
    speed = f"{judged.rows[0].images_per_second:,.0f} images/s through the encoder"
    if frozen:
        computed = [row for row in frozen.values() if row.source == "computed"]
        taken = sum(sum(judged.counts) / row.images_per_second for row in computed)
        console.print(f"time: {duration(taken)} for features ({speed}), {seconds} for scores")
    else:
        console.print(f"time: {seconds}, {speed}")
    if kept := [arm for arm, row in frozen.items() if row.source == "kept"]:
        console.print(
            f"features reused from disk ({' and '.join(kept)}): "
            f"{features_folder(judged.subject.path)}"
        )
    draws = max(len(row.scores) for row in judged.rows)
    if draws > 1:
        console.print(f"mean ± standard deviation over {draws} draws")


def _feature(name: str) -> str:
    """The feature that was scored, or the blocks that were trained, in words."""
    return _FEATURES.get(name, f"{name} blocks trained")


def _percent(row: Row) -> str:
    several = f" ± {row.spread:.1%}" if len(row.scores) > 1 else ""
    return f"{row.mean:.1%}{several}"


def _short(data: str) -> str:
    return Path(data).name or data


def place_of_scores(encoders: list[str], name: str) -> Path:
    """The JSON file for the scores of encoders: in the run's folder for one, if it is writable, else here."""
    if len(encoders) > 1:
        return Path(_FOLDER) / f"compared-{name}.json"
    return _place(encoders[0]) / f"{name}.json"


def write_scores(judged: Judged, path: Path) -> list[Path]:
    """Write JSON, and a picture next to it."""
    with writing(path):
        _write_json(path, judged.result())
    return [path, *_with_picture(path, lambda picture: _draw(judged, picture))]


def _with_picture(path: Path, draw: Callable[[Path], object]) -> list[Path]:
    """The picture next to a file of scores; none, and a note, if it cannot be drawn."""
    picture = path.with_suffix(".png")
    note = drawn(picture, draw)
    if note:
        notes.print(f"note: {note}")
    return [] if note else [picture]


def _place(weights: str) -> Path:
    """The folder of results: in the run, if it is writable; else in the current folder."""
    folder = RunFolder(weights)
    place = folder.evaluations if folder.evaluations.exists() else folder.root
    inside = folder.spec.exists() and place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return folder.evaluations if inside else Path(_FOLDER) / Path(weights).stem


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _draw(judged: Judged, path: Path) -> None:
    """Draw curves over blocks or numbers of labels; bars if there is only one of them."""
    rows, amounts = judged.rows, judged.question.labels
    if judged.question.protocol == "ladder":
        rungs = list(dict.fromkeys(row.feature for row in rows if row.arm == PRETRAINED))
        lines = _lines([row for row in rows if row.arm != SCRATCH], "labels")
        levels = _lines([row for row in rows if row.arm == SCRATCH], "labels")
        accuracy_curves(rungs, lines, levels, judged.chance, "blocks trained", judged.title, path)
    elif len(amounts) > 1:
        lines = _lines(rows, "feature")
        along = "training labels per class"
        accuracy_curves(amounts, lines, [], judged.chance, along, judged.title, path)
    else:
        bars = [
            Bar(_feature(row.feature), row.arm, _point(row), row.arm != PRETRAINED) for row in rows
        ]
        groups = list(dict.fromkeys(bar.group for bar in bars))
        bars.sort(key=lambda bar: groups.index(bar.group))
        accuracy_bars(bars, judged.chance, judged.title, path)


def _lines(rows: list[Row], by: Literal["labels", "feature"]) -> list[Line]:
    """A line for each arm and feature, or each arm and number of labels; what all lines share is not named."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.arm, getattr(row, by)), []).append(row)
    several = len({second for arm, second in found if arm != SCRATCH}) > 1
    lines: list[Line] = []
    for (arm, _), some in found.items():
        second = f"labels: {some[0].labels}" if by == "labels" else _feature(some[0].feature)
        # training from scratch has no features to tell apart
        is_named = several and (by == "labels" or arm != SCRATCH)
        name = f"{arm}, {second}" if is_named else arm
        lines.append(Line(name, [_point(row) for row in some], arm != PRETRAINED))
    return lines


def _point(row: Row) -> Point:
    return Point(row.mean, row.spread)


class Comparison(NamedTuple):
    """A table of methods against sizes, for one feature and one number of labels."""

    feature: str
    labels: str
    sizes: dict[int, str]
    """Parameters, and the shape in words, from small to large."""
    rows: dict[str, dict[int, Row]]
    """By method, then by parameters; controls have rows too."""
    majority: float | None
    """The score of always answering the largest class."""

    @property
    def words(self) -> str:
        """What the table compares."""
        return f"{_feature(self.feature)}, labels: {self.labels}"

    def lines(self) -> Iterator[list[str]]:
        """The cells of each line: a method, and its score for each size; last, the share of the largest class."""
        for method, rows in self.rows.items():
            yield [method, *(_percent(rows[size]) if size in rows else "" for size in self.sizes)]
        if self.majority is not None:
            yield ["largest class", *[f"{self.majority:.1%}"] * len(self.sizes)]


def comparison_tables(judged: list[Judged]) -> list[Comparison]:
    """One table for each feature and number of labels that any encoder has."""
    sizes = {one.parameters: shape_of(one.subject.model.spec.encoder) for one in judged}
    sizes = dict(sorted(sizes.items()))
    names = _names(judged)
    found: dict[tuple[str, str], Comparison] = {}
    for one, name in zip(judged, names, strict=True):
        for row in one.rows:
            key = (row.feature, row.labels)
            table = found.setdefault(key, Comparison(*key, sizes, {}, judged[0].majority))
            method = name if row.arm == PRETRAINED else f"{name}, {row.arm}"
            table.rows.setdefault(method, {})[one.parameters] = row
    return list(found.values())


def _names(judged: list[Judged]) -> list[str]:
    """The method of each encoder; with its path if another of the same method has the same size."""
    keys = [(one.method, one.parameters) for one in judged]
    return [
        one.method if keys.count(key) == 1 else f"{one.method} ({one.subject.path})"
        for one, key in zip(judged, keys, strict=True)
    ]


def say_comparison(tables: list[Comparison]) -> None:
    """Print methods against sizes."""
    for table in tables:
        heading = Table("method", *(f"{millions(size)}" for size in table.sizes))
        for cells in table.lines():
            heading.add_row(*cells)
        console.print(f"{table.words}, by number of parameters of the encoder:")
        console.print(heading)


def write_comparison(judged: list[Judged], path: Path) -> list[Path]:
    """Write JSON of several encoders, and Markdown and a picture next to it."""
    markdown = path.with_suffix(".md")
    tables = comparison_tables(judged)
    with writing(path):
        _write_json(path, {"encoders": [one.result() for one in judged]})
        write_text(markdown, _markdown(judged, tables))
    pictures = _with_picture(path, lambda picture: _draw_sizes(judged[0], tables, picture))
    return [path, markdown, *pictures]


def _markdown(judged: list[Judged], tables: list[Comparison]) -> str:
    first = judged[0]
    lines = [
        f"# {first.question.protocol} on {_short(first.data)}",
        "",
        f"{first.counts[0]:,} training images, {first.counts[1]:,} test images, {first.classes} classes, "
        f"chance {first.chance:.1%}. Test accuracy"
        + (", mean ± standard deviation over draws." if first.question.seeds > 1 else "."),
    ]
    for table in tables:
        columns = [f"{millions(size)}: {shape}" for size, shape in table.sizes.items()]
        lines += ["", f"## {table.words}", "", f"| method | {' | '.join(columns)} |"]
        lines.append("|---|" + "---:|" * len(columns))
        lines += [f"| {' | '.join(cells)} |" for cells in table.lines()]
    arms = {row.arm for one in judged for row in one.rows}
    lines += [f"\n{arm}: {words}." for arm, words in _CONTROLS.items() if arm in arms]
    lines += ["", "| encoder | method | parameters |", "|---|---|---:|"]
    lines += [
        f"| {one.subject.path} ({one.subject.model.about}) | {one.method} | {one.parameters:,} |"
        for one in judged
    ]
    return "\n".join(lines) + "\n"


def _draw_sizes(first: Judged, tables: list[Comparison], path: Path) -> None:
    lines: list[Line] = []
    sizes: list[list[int]] = []
    for table in tables:
        for method, rows in table.rows.items():
            name = f"{method}: {table.words}" if len(tables) > 1 else method
            control = any(row.arm != PRETRAINED for row in rows.values())
            ordered = sorted(rows)
            sizes.append(ordered)
            lines.append(Line(name, [_point(rows[size]) for size in ordered], control))
    title = f"{first.question.protocol} on {_short(first.data)}"
    accuracy_by_size(sizes, lines, first.chance, title, path)
