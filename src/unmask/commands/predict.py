"""`unmask predict RUN IMAGES`: print classes and probabilities of images."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import tyro

from unmask.annotations import ClassLabels
from unmask.console.arguments import parse
from unmask.console.hardware import Threads, use_threads
from unmask.console.labels import labelled_source
from unmask.console.output import check_writable, console, matched, notes, say_left_out, writing
from unmask.data import AnySource
from unmask.data.in_order import Unreadable
from unmask.data.kinds import is_data
from unmask.errors import SettingsError
from unmask.pictures.drawing import drawn
from unmask.pictures.figure import confusion_picture
from unmask.runs.batches import Images
from unmask.runs.predict import (
    Answer,
    Predictor,
    confusion,
    load_predictor,
    predict_files,
    predict_source,
    truth_of,
)
from unmask.spec import to_json
from unmask.tasks.task import Score
from unmask.training.hardware import find_device

_SHOWN = 20  # images listed on the console


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask predict`."""

    run: tyro.conf.Positional[str]
    """The folder of a fine-tuned run."""

    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files, or one data set: a folder, shards, Parquet, or digits (its test images, if it has any)."""

    top: int = 5
    """Number of classes to list, the most likely first."""

    out: str | None = None
    """A CSV file with a line for every image. If the true classes are known, a confusion matrix is drawn too:
    next to this file, or in the run's folder."""

    data_kind: str | None = None
    """Format of the data set (folder, shards, parquet, tiff, digits); detected if not given."""

    labels_file: str | None = None
    """A CSV, Parquet or JSON lines file with the classes of each image, to score the predictions; as in
    finetune if not given."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print predictions as JSON."""


class Predictions(NamedTuple):
    """The predictions of a fine-tuned module for some images."""

    answers: list[Answer]
    names: tuple[str, ...]
    """The names of the classes."""
    score: Score | None
    """The task's score; None if the true classes are not known."""
    unreadable: Unreadable


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "predict", "Print classes and probabilities of images.")
    if args.top < 1:
        raise SettingsError(f"--top must be at least 1, got {args.top}")
    if not args.images:
        raise SettingsError(
            "which images? give image files, or a folder: `unmask predict RUN FOLDER`"
        )
    if args.out is not None:
        check_writable(Path(args.out))
    use_threads(args.threads)
    predictor = _loaded(args.run, args.device)
    predictions = _predictions(predictor, args.images, args.data_kind, args.labels_file)
    rows = [_row(answer, predictions, args.top) for answer in predictions.answers]
    written: list[Path] = []
    if args.out is not None:
        written.append(_write(Path(args.out), rows))
    one_class = isinstance(predictor.tuned.job.annotations, ClassLabels)
    if predictions.score is not None and one_class:
        written += _draw(predictions, args)
    if args.json:
        print(json.dumps(_as_json(predictions, args.top)))
        return 0
    for answer in predictions.answers[:_SHOWN]:
        console.print(_line(answer, predictions.names, args.top))
    if len(predictions.answers) > _SHOWN:
        hint = "" if args.out else "; --out FILE.csv lists all"
        console.print(f"and {len(predictions.answers) - _SHOWN:,} more{hint}")
    if predictions.score is not None:
        console.print(predictions.score.line())
    if predictions.unreadable:
        name, reason = predictions.unreadable[0]
        notes.print(
            f"{len(predictions.unreadable)} unreadable images skipped; the first is {name}: {reason}"
        )
    for path in written:
        console.print(f"written: {path}")
    return 0


def predict(
    run: str | Path,
    images: Images,
    *,
    labels_file: str | Path | None = None,
    device: str = "auto",
) -> Predictions:
    """Predict the classes of images, as `unmask predict` does.

    Args:
        run: the folder of a fine-tuned run.
        images: image files, or one data set: a folder, pattern, "digits", the spec of a source, or what a program holds: a
            picture or an array, a list of those, a torch Dataset, or a DataLoader (uint8 or floats from 0 to 1), which is
            read once, into memory. If they come with labels, the predictions are scored.
        labels_file: a CSV, Parquet or JSON lines file with the classes of each image, to score the predictions.
        device: cpu, cuda, cuda:1, mps, or auto.
    """
    predictor = _loaded(str(run), device)
    labels = None if labels_file is None else str(labels_file)
    if isinstance(images, str | Path):
        images = (images,)
    if isinstance(images, tuple | list) and all(isinstance(one, str | Path) for one in images):
        return _predictions(predictor, tuple(map(str, images)), None, labels)
    return _of_source(predictor, labelled_source(images, None, labels))


def _loaded(run: str, device: str) -> Predictor:
    predictor = load_predictor(run, str(find_device(device)))
    for line in predictor.model.damaged:
        notes.print(f"skipped a damaged checkpoint: {line}")
    return predictor


def _predictions(
    predictor: Predictor, images: tuple[str, ...], kind: str | None, labels_file: str | None
) -> Predictions:
    """Predictions for image files, or for one data set."""
    datasets = [name for name in images if is_data(name)]
    if not datasets:
        return Predictions(list(predict_files(predictor, images)), predictor.names, None, [])
    if len(images) > 1:
        raise SettingsError(
            f"give image files or one data set, got {len(images)} names, and {datasets[0]} is a data set"
        )
    like = predictor.model.bands
    return _of_source(predictor, labelled_source(datasets[0], kind, labels_file, like, notes))


def _of_source(predictor: Predictor, data: AnySource) -> Predictions:
    """Predictions for the test images of a source, with a score if their classes are known."""
    opened, unreadable = data.open(data.splits()[-1]), Unreadable()
    say_left_out(opened, notes)
    job = predictor.tuned.job
    images = matched(opened, predictor.model.spec.channels, "this classifier was trained on")
    source, scored, note = truth_of(predictor, images)
    if note is not None:
        notes.print(f"note: {note}")
    scoring = job.recipe.task.scoring(job.annotations, predictor.thresholds)
    answers: list[Answer] = []
    known = 0
    for outputs, truth, positions in predict_source(predictor, source, unreadable):
        known_truth = truth if scored else None
        batch = predictor.answers(outputs, known_truth, [source.name(p) for p in positions])
        answers += batch
        rows = torch.tensor([answer.truth is not None for answer in batch])
        if scored and bool(rows.any()):
            scoring.add(outputs[rows], truth[rows])
            known += int(rows.sum())
    score = scoring.result() if known else None
    return Predictions(answers, predictor.names, score, unreadable)


def _top(answer: Answer, top: int) -> list[tuple[int, float]]:
    """The most likely classes of an image, and their probabilities."""
    prediction = answer.prediction
    return list(zip(prediction.classes, prediction.probabilities, strict=True))[:top]


def _named(numbers: tuple[int, ...] | list[int], names: tuple[str, ...]) -> str:
    return ";".join(names[number] for number in numbers)


def _line(answer: Answer, names: tuple[str, ...], top: int) -> str:
    listed = ", ".join(f"{names[number]} {share:.1%}" for number, share in _top(answer, top))
    truth = "" if answer.truth is None else f" (is {_named(answer.truth, names) or 'none'})"
    return f"{answer.name}{truth}: {listed}"


def _row(answer: Answer, predictions: Predictions, top: int) -> dict[str, str]:
    names = predictions.names
    row = {"image": answer.name}
    if predictions.score is not None:
        row["class"] = _named(answer.truth or (), names)
    if len(answer.prediction.chosen) != 1:  # a multi-label task
        row["chosen"] = _named(answer.prediction.chosen, names)
    for place, (number, probability) in enumerate(_top(answer, top), 1):
        row |= {f"guess {place}": names[number], f"probability {place}": f"{probability:.6g}"}
    return row


def _as_json(predictions: Predictions, top: int) -> dict[str, Any]:
    names = predictions.names
    return {
        **({} if predictions.score is None else to_json(predictions.score)),
        "left_out": len(predictions.unreadable),
        "images": [
            {
                "image": answer.name,
                "class": None if not answer.truth else _named(answer.truth, names),
                "chosen": [names[number] for number in answer.prediction.chosen],
                "guesses": [
                    {"class": names[number], "probability": probability}
                    for number, probability in _top(answer, top)
                ],
            }
            for answer in predictions.answers
        ],
    }


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (
        writing(path),
        path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _draw(predictions: Predictions, args: Arguments) -> list[Path]:
    """Draw the confusion matrix: next to the CSV file, else in the run's folder, else here."""
    images = Path(args.images[0]).resolve().name
    if args.out is not None:
        path = Path(args.out).with_suffix(".png")
    else:
        inside = os.access(args.run, os.W_OK | os.X_OK)
        path = Path(args.run if inside else ".") / f"confusion-{images}.png"
    assert predictions.score is not None
    share, count = predictions.score.value, predictions.score.images
    title = f"{images}: top-1 {share:.1%} on {count:,} images"
    counts = confusion(predictions.answers, len(predictions.names))
    note = drawn(path, lambda file: confusion_picture(counts, predictions.names, title, file))
    if note:
        notes.print(f"note: {note}")
    return [] if note else [path]
