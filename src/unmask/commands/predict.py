"""`unmask predict RUN IMAGES`: find classes of images, or boxes, masks and class maps in them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import tyro

from unmask.console.arguments import parse
from unmask.console.bars import progress_on
from unmask.console.classes import (
    ClassFiles,
    draw_confusion,
    draw_mistakes,
    say_table,
    write_table,
)
from unmask.console.hardware import Threads, use_threads
from unmask.console.labels import labelled_source
from unmask.console.locating import (
    check_folder,
    pictures_of_files,
    pictures_of_source,
    predict_located,
)
from unmask.console.output import (
    check_writable,
    console,
    matched,
    notes,
    say_left_out,
    write_csv,
    writing,
)
from unmask.console.wrong_calls import explained
from unmask.data import AnySource
from unmask.data.in_order import Unreadable
from unmask.data.kinds import ignoring, is_data
from unmask.errors import SettingsError
from unmask.progress import counted
from unmask.runs.batches import Images
from unmask.runs.folder import RunFolder
from unmask.runs.job import Picture
from unmask.runs.mistakes import Mistake, mistakes_of, pictures_of, surest
from unmask.runs.predict import (
    Answer,
    Predictor,
    confusion,
    load_predictor,
    predict_source,
    truth_of,
)
from unmask.runs.run import Run
from unmask.spec import to_json, within
from unmask.tasks.classify import Accuracy
from unmask.tasks.task import Score
from unmask.training.hardware import find_device
from unmask.traits import Locating, Tabular

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
    next to this file, or in the run's folder. Of segmentation and detection, a folder for pictures and maps or
    COCO JSON; RUN/predictions-IMAGES if not given."""

    tiles: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For segmentation and detection: look at large pictures in their own resolution, in overlapping tiles."""

    data_kind: str | None = None
    """Format of the data set (folder, shards, parquet, tiff, digits, maps, instance-maps, coco, yolo, voc); detected if not given."""

    ignore: str | None = None
    """Values of class maps that are not scored, such as 0,255; those of the run if not given."""

    labels_file: str | None = None
    """A CSV, Parquet or JSON lines file with the classes of each image, to score the predictions; as in
    finetune if not given."""

    device: str = "auto"
    """cpu, cuda (or gpu), cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print predictions as JSON."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "top", "threads")


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
    args = parse(Arguments, arguments, "predict")
    if not args.images:
        raise SettingsError(
            "which images? give image files, or a folder: `unmask predict RUN FOLDER`"
        )
    if args.out is not None and not Path(args.out).is_dir():  # a folder is for what is located
        check_writable(Path(args.out))
    use_threads(args.threads)
    predictor = _loaded(args.run, args.device)
    if isinstance(predictor.tuned.module, Locating):
        return _locate(predictor, args)
    if args.tiles:
        raise SettingsError(
            "--tiles is for runs that segment or detect, and this one classifies whole images"
        )
    if args.ignore is not None:
        raise SettingsError(
            "--ignore is for runs that segment, and this one classifies whole images; leave it out"
        )
    if args.out is not None:
        check_writable(Path(args.out))
    with progress_on(notes):
        predictions, pictures = _predictions(
            predictor, args.images, args.data_kind, args.labels_file
        )
    # scores are printed first, in case something cannot be written
    if args.json:
        print(json.dumps(_as_json(predictions, args.top)))
    else:
        _say(predictions, args)
    written = _write_all(predictions, pictures, args)
    if not args.json:
        for path in written:
            console.print(f"written: {path}")
    return 0


def _locate(predictor: Predictor, args: Arguments) -> int:
    """Class maps or objects of image files, or of one data set."""
    first = Path(args.images[0])
    out = Path(args.out or Path(args.run) / f"predictions-{first.stem or first.resolve().name}")
    check_folder(out)
    unreadable: Unreadable = []
    data = _data_set(args.images)
    if data is None and args.ignore is not None:
        raise SettingsError(
            "--ignore is for a data set with class maps, and these are pictures alone; leave it out"
        )
    with progress_on(notes):
        if data is None:
            pictures = pictures_of_files(predictor, args.images)
        else:
            notes.print(f"reading   {data} ...")
            like = predictor.model.bands
            source = labelled_source(data, args.data_kind, args.labels_file, like, notes)
            source = ignoring(source, args.ignore, Run.read(RunFolder(args.run)).data)
            pictures = pictures_of_source(predictor, source, unreadable)
        predict_located(predictor, pictures, out, args.tiles, args.json)
    _say_unreadable(unreadable)
    return 0


def _say_unreadable(unreadable: Unreadable) -> None:
    if unreadable:
        name, reason = unreadable[0]
        notes.warn(f"{len(unreadable)} unreadable images skipped; the first is {name}: {reason}")


def _say(predictions: Predictions, args: Arguments) -> None:
    """Print the score, then some of the predictions."""
    score, answers = predictions.score, predictions.answers
    if score is not None:
        console.result(score.line())
    if isinstance(score, Tabular):
        say_table(score, _files(args).table)
    for answer in answers[:_SHOWN]:
        console.result(_line(answer, predictions.names, args.top))
    if len(answers) > _SHOWN:
        hint = "" if args.out else "; --out FILE.csv lists all"
        console.print(f"and {len(answers) - _SHOWN:,} more{hint}")
    _say_unreadable(predictions.unreadable)


@explained("unmask.predict('runs/animals', 'photo.jpg')")
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
    if isinstance(predictor.tuned.module, Locating):
        raise SettingsError(
            f"{run} locates things in images; use unmask.load({str(run)!r}).{predictor.tuned.method}(images)"
        )
    labels = None if labels_file is None else str(labels_file)
    if isinstance(images, str | Path):
        images = (images,)
    if isinstance(images, tuple | list) and all(isinstance(one, str | Path) for one in images):
        return _predictions(predictor, tuple(map(str, images)), None, labels)[0]
    return _of_source(predictor, labelled_source(images, None, labels))[0]


def _loaded(run: str, device: str) -> Predictor:
    predictor = load_predictor(run, str(find_device(device)))
    for line in predictor.model.damaged:
        notes.warn(f"skipped a damaged checkpoint: {line}")
    return predictor


def _predictions(
    predictor: Predictor, images: tuple[str, ...], kind: str | None, labels_file: str | None
) -> tuple[Predictions, tuple[Picture, ...]]:
    """Predictions for image files, or for one data set; with the surest mistakes."""
    data = _data_set(images)
    if data is None:
        batches = predictor.model.outputs(images, progress=False)
        counting = counted(batches, len(images), "predicting", lambda batch: len(batch[0]))
        answers = [
            answer
            for names, outputs in counting
            for answer in predictor.answers(outputs, None, names)
        ]
        return Predictions(answers, predictor.names, None, []), ()
    like = predictor.model.bands
    notes.print(f"reading   {data} ...")
    return _of_source(predictor, labelled_source(data, kind, labels_file, like, notes))


def _data_set(images: tuple[str, ...]) -> str | None:
    """The data set among the names; None if all are image files.

    Raises:
        SettingsError: if it is not the only one.
    """
    data = next((name for name in images if is_data(name)), None)
    if data is not None and len(images) > 1:
        raise SettingsError(
            f"give image files or one data set, got {len(images)} names, and {data} is a data set"
        )
    return data


def _of_source(predictor: Predictor, data: AnySource) -> tuple[Predictions, tuple[Picture, ...]]:
    """Predictions for the test images of a source; with a score and the surest mistakes if their classes are known."""
    opened, unreadable = data.open(data.splits()[-1]), Unreadable()
    say_left_out(opened, notes)
    job = predictor.tuned.job
    images = matched(opened, predictor.model.spec.channels, "this classifier was trained on")
    source, scored, note = truth_of(job.annotations, images)
    if note is not None:
        notes.note(note)
    scoring: Any = job.recipe.task.scoring(job.annotations, predictor.thresholds)
    answers: list[Answer] = []
    mistakes: list[Mistake] = []
    known = 0
    for outputs, truth, positions in predict_source(predictor, source, unreadable):
        known_truth = truth if scored else None
        batch = predictor.answers(outputs, known_truth, [source.name(p) for p in positions])
        answers += batch
        rows = torch.tensor([answer.truth is not None for answer in batch])
        if scored and bool(rows.any()):
            scoring.add(outputs[rows], truth[rows])
            known += int(rows.sum())
            mistakes = surest([*mistakes, *mistakes_of(outputs, truth, positions)])
    score = scoring.result() if known else None
    recipe, statistics = job.recipe, predictor.tuned.statistics
    views, size = recipe.test_views, recipe.image_size
    pictures = pictures_of(mistakes, source, predictor.names, views, size, statistics)
    return Predictions(answers, predictor.names, score, unreadable), pictures


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
    write_csv(path, columns, rows)
    return path


def _files(args: Arguments) -> ClassFiles:
    """Files of the scores of classes: next to the CSV file of predictions, else in the run's folder, else here."""
    if args.out is not None:
        out = Path(args.out)
        return ClassFiles(
            out.with_name(f"{out.stem}-classes.csv"),
            out.with_suffix(".png"),
            out.with_name(f"{out.stem}-mistakes.png"),
        )
    images = Path(args.images[0]).resolve().name
    folder = Path(args.run if os.access(args.run, os.W_OK | os.X_OK) else ".")
    return ClassFiles(
        folder / f"classes-{images}.csv",
        folder / f"confusion-{images}.png",
        folder / f"mistakes-{images}.png",
    )


def _write_all(
    predictions: Predictions, pictures: tuple[Picture, ...], args: Arguments
) -> list[Path]:
    """Write predictions if asked for; with known classes also the scores of each class and their pictures."""
    written: list[Path] = []
    if args.out is not None:
        rows = [_row(answer, predictions, args.top) for answer in predictions.answers]
        written.append(_write(Path(args.out), rows))
    score, files = predictions.score, _files(args)
    if isinstance(score, Tabular):
        with writing(files.table):
            written.append(write_table(score, files.table))
    if isinstance(score, Accuracy):
        counts = confusion(predictions.answers, len(predictions.names))
        images = Path(args.images[0]).resolve().name
        title = f"{images}: top-1 {score.value:.1%} on {score.images:,} images"
        written += draw_confusion(counts, predictions.names, title, files.confusion)
        written += draw_mistakes(pictures, files.mistakes)
    return written
