"""The output of `unmask evaluate`: tables, JSON, Markdown and pictures of scores."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.console.judged import Judged, balanced, feature_words, percent, point, short
from unmask.console.output import console, duration, notes, writing
from unmask.evaluation.frozen import PRETRAINED, RANDOM, RAW, SCRATCH, Row
from unmask.evaluation.store import facts_of, features_folder, hash_of, hash_of_tensors
from unmask.files import write_text
from unmask.pictures.accuracy import Bar, Line, accuracy_bars, accuracy_curves, millions
from unmask.pictures.drawing import drawn
from unmask.runs.folder import RunFolder

CONTROLS = {
    RANDOM: "the same encoder with random weights; frozen parts stay random",
    SCRATCH: "all blocks trained from random weights, with the same learning rate in all layers",
    RAW: "the image without an encoder",
}
"""What is scored beside an encoder, in words."""

SHOWN = {RANDOM: "random weights"}
"""Shorter names of arms for tables."""

_FOLDER = "evaluations"


def say_scores(judged: Judged) -> None:
    """Print the scores of an encoder."""
    result, protocol = judged.result(), judged.question.protocol
    console.result(
        f"encoder   {result['run']} ({result['weights']}; {result['shape']}, {millions(judged.parameters)} parameters)\n"
        f"images    {judged.data}: {result['train_images']:,} for training, {result['test_images']:,} for testing "
        f"({result['split']}), {judged.classes} classes\n"
        f"protocol  {'; '.join([protocol, *_setting_lines(judged.rows)])}"
    )
    console.result(_table(judged))
    draws = max(len(row.scores) for row in judged.rows)
    if draws > 1:
        console.result(f"mean ± standard deviation over {draws} draws")
    for arm in dict.fromkeys(row.arm for row in judged.rows):
        if arm in CONTROLS:
            console.print(f"{SHOWN.get(arm, arm)}: {CONTROLS[arm]}")
    _say_time(judged)
    if judged.unreadable:
        name, reason = judged.unreadable[0]
        notes.warn(
            f"{len(judged.unreadable)} unreadable images skipped; the first is {name}: {reason}"
        )


def say_verdicts(every: list[Judged]) -> None:
    """Print whether each encoder is better than its controls."""
    for judged in every:
        name = f"{judged.subject.path}: " if len(every) > 1 else ""
        several = len(judged.question.labels) > 1
        for one in judged.verdicts:
            amount = f"labels {one.labels}: " if several else ""
            console.result(f"verdict   {name}{amount}{one.words}")


def _table(judged: Judged) -> Table:
    several = len({row.labels for row in judged.rows}) > 1
    columns = ["encoder", "feature", *(["labels"] if several else [])]
    has_balanced = any(balanced(row) for row in judged.rows)
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for name in (judged.measure, *(["balanced"] if has_balanced else [])):
        table.add_column(name, justify="right", no_wrap=True)

    def add(encoder: str, feature: str, labels: str, *figures: str) -> None:
        table.add_row(encoder, feature, *([labels] if several else []), *figures)

    for row in judged.rows:
        shares = (f"{share:.1%}" for share in balanced(row).values())
        add(SHOWN.get(row.arm, row.arm), feature_words(row), row.labels, percent(row), *shares)
    add("chance", "", "", f"{judged.chance:.1%}")
    if judged.majority is not None:
        add("largest class", "", "", f"{judged.majority:.1%}", f"{judged.chance:.1%}")
    return table


def _setting_lines(rows: list[Row]) -> list[str]:
    """How scores were made: first what all rows share, then each setting of only some rows with their names."""
    parts = {
        part: [row for row in rows if part in row.setting.split("; ")]
        for row in rows
        for part in row.setting.split("; ")
    }
    shared = [part for part, some in parts.items() if len(some) == len(rows)]
    own = [f"{_names(some, rows)}: {part}" for part, some in parts.items() if part not in shared]
    return ["; ".join(shared), *own] if shared else own


def _names(some: list[Row], rows: list[Row]) -> str:
    """Names of some rows; of an encoder of which all rows are meant, only its own name."""
    names: list[str] = []
    for row in some:
        all_of_it = all(other in some for other in rows if other.arm == row.arm)
        words = [feature_words(row)] * (not all_of_it)
        words += [f"labels {row.labels}"] * (not all_of_it and row.labels != "all")
        names.append(" ".join([SHOWN.get(row.arm, row.arm), *words]))
    return ", ".join(dict.fromkeys(names))


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
        features = f"{duration(taken)} for features ({speed}), " if computed else ""
        console.print(f"time: {features}{seconds} for scores")
    else:
        console.print(f"time: {seconds}, {speed}")
    if kept := [arm for arm, row in frozen.items() if row.source == "kept" and arm != RAW]:
        console.print(
            f"features reused from disk ({' and '.join(kept)}): "
            f"{features_folder(judged.subject.path)}"
        )


def place_of_scores(encoders: list[str], name: str) -> Path:
    """The JSON file for the scores of encoders: in the run's folder for one, if it is writable, else here."""
    if len(encoders) > 1:
        return Path(_FOLDER) / f"compared-{name}.json"
    return _place(encoders[0]) / f"{name}.json"


def write_scores(judged: Judged, path: Path) -> list[Path]:
    """Write JSON, and a picture next to it."""
    with writing(path):
        write_json(path, judged.result())
    return [path, *with_picture(path, lambda picture: _draw(judged, picture))]


def write_fitted(judged: Judged) -> list[Path]:
    """Write the rule that whitened the encoder's vectors, so that the same vectors can be made again."""
    fitted, model, train = judged.fitted, judged.subject.model, judged.subject.labelled.train
    if fitted is None:
        return []
    place, folder = _place(judged.subject.path), RunFolder(judged.subject.path)
    parent = folder.vectors if place == folder.evaluations else place / "vectors"
    path = parent / f"{short(judged.data)}.safetensors"
    facts = {
        "weights": hash_of_tensors(model.encoder.state_dict()),
        "image_size": list(model.spec.image_size),
        "data": judged.data,
        "images": judged.counts[0],
        "images_hash": hash_of(facts_of(train)),
    }
    with writing(path):
        return fitted.save(path, facts)


def with_picture(path: Path, draw: Callable[[Path], object]) -> list[Path]:
    """The picture next to a file of scores; none, and a note, if it cannot be drawn."""
    picture = path.with_suffix(".png")
    note = drawn(picture, draw)
    if note:
        notes.note(note)
    return [] if note else [picture]


def _place(weights: str) -> Path:
    """The folder of results: in the run, if it is writable; else in the current folder."""
    folder = RunFolder(weights)
    place = folder.evaluations if folder.evaluations.exists() else folder.root
    inside = folder.spec.exists() and place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return folder.evaluations if inside else Path(_FOLDER) / Path(weights).stem


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON values for people to read."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def _draw(judged: Judged, path: Path) -> None:
    """Draw curves over blocks or numbers of labels; bars if there is only one of them."""
    rows, amounts = judged.rows, judged.question.labels
    if judged.question.protocol == "ladder":
        rungs = list(dict.fromkeys(row.feature for row in rows if row.arm == PRETRAINED))
        lines = _lines([row for row in rows if row.arm != SCRATCH], "labels")
        levels = _lines([row for row in rows if row.arm == SCRATCH], "labels")
        accuracy_curves(
            rungs,
            lines,
            levels,
            judged.measure,
            judged.chance,
            "blocks trained",
            judged.title,
            path,
        )
    elif len(amounts) > 1:
        lines = _lines(rows, "feature")
        along = "training labels per class"
        accuracy_curves(
            amounts, lines, [], judged.measure, judged.chance, along, judged.title, path
        )
    else:
        bars = [Bar(feature_words(row), row.arm, point(row), row.arm != PRETRAINED) for row in rows]
        groups = list(dict.fromkeys(bar.group for bar in bars))
        bars.sort(key=lambda bar: groups.index(bar.group))
        accuracy_bars(bars, judged.measure, judged.chance, judged.title, path)


def _lines(rows: list[Row], by: Literal["labels", "feature"]) -> list[Line]:
    """A line for each arm and feature, or each arm and number of labels; what all lines share is not named."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        words = f"labels: {row.labels}" if by == "labels" else feature_words(row)
        found.setdefault((row.arm, words), []).append(row)
    several = len({words for arm, words in found if arm != SCRATCH}) > 1
    lines: list[Line] = []
    for (arm, words), some in found.items():
        # training from scratch has no features to tell apart
        is_named = several and (by == "labels" or arm != SCRATCH)
        name = f"{arm}, {words}" if is_named else arm
        lines.append(Line(name, [point(row) for row in some], arm != PRETRAINED))
    return lines
