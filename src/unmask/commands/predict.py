"""`unmask predict RUN IMAGE_OR_DATA`: class names and probabilities."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unmask.console.arguments import parse
from unmask.console.output import console, notes
from unmask.data.in_order import Unreadable
from unmask.data.kinds import find_source, is_data
from unmask.errors import ResourceError, SettingsError
from unmask.pictures.confusion import confusion_picture
from unmask.runs.predict import (
    Guess,
    Trained,
    confusion,
    load_classifier,
    predict,
    predict_files,
    same_classes,
)
from unmask.training.hardware import find_device

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask predict`."""

    run: tyro.conf.Positional[str]
    """Folder of a run of fine-tuning."""

    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files, or a set of images: a folder, shards, Parquet, or digits (its test images, if it has any)."""

    top: int = 5
    """Classes to name, the likeliest first."""

    out: str | None = None
    """A CSV file with a line for every image; where classes are known, a picture of what is taken for
    what lies beside it, and else in the run's folder."""

    data_kind: str | None = None
    """What a set of images is; seen from what is there if not given."""

    device: str = "auto"
    """Where to compute."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print guesses as JSON."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "predict", "Class names and probabilities of images.")
    if args.top < 1:
        raise SettingsError(f"--top must be at least 1, got {args.top}")
    if not args.images:
        raise SettingsError("which images? name image files, or a folder of them")
    trained = load_classifier(args.run, str(find_device(args.device)))
    for line in trained.model.damaged:
        notes.print(f"passed over a damaged checkpoint: {line}")
    unreadable: Unreadable = []
    guesses, known = _guesses(trained, args, unreadable)
    accuracy = _accuracy(guesses) if known else {}
    guesses = [
        g._replace(classes=g.classes[: args.top], probabilities=g.probabilities[: args.top])
        for g in guesses
    ]
    shown = [_row(guess, trained.run.classes, known) for guess in guesses]
    written: list[Path] = []
    if args.out is not None:
        written.append(_write(Path(args.out), shown))
    if known:
        written.append(_draw(trained, guesses, accuracy["top1"], args))
    if args.json:
        print(
            json.dumps(
                {
                    **accuracy,
                    "left_out": len(unreadable),
                    "images": _nested(guesses, trained, known),
                }
            )
        )
        return 0
    for guess in guesses[:_SHOWN]:
        console.print(_line(guess, trained.run.classes, known))
    if len(guesses) > _SHOWN:
        rest = f"{len(guesses) - _SHOWN:,} more" + (
            "" if args.out else "; --out FILE.csv lists all"
        )
        console.print(f"and {rest}")
    for name, share in accuracy.items():
        console.print(f"{name.replace('top', 'top-')} {share:.2%} on {len(guesses):,} images")
    if unreadable:
        name, reason = unreadable[0]
        notes.print(f"{len(unreadable)} images left out, the first {name}: {reason}")
    for path in written:
        console.print(f"written: {path}")
    return 0


def _guesses(trained: Trained, args: Arguments, unreadable: Unreadable) -> tuple[list[Guess], bool]:
    """What the classifier says of every image, and whether their classes are known."""
    top = max(args.top, 5)  # for top-5
    sets = [name for name in args.images if is_data(name)]
    if not sets:
        return list(predict_files(trained, args.images, top)), False
    if len(args.images) > 1:
        raise SettingsError(
            f"one set of images, or image files; got {len(args.images)} names, of which {sets[0]} is a set"
        )
    data = find_source(sets[0], args.data_kind, *trained.model.bands)
    source = data.open(data.splits()[-1])
    known = same_classes(trained.run, source)
    return list(predict(trained, source, top, unreadable)), known


def _accuracy(guesses: list[Guess]) -> dict[str, float]:
    """Share of images whose class is the likeliest, and among the five likeliest where there are more."""
    places = (1, 5) if len(guesses[0].classes) >= 5 else (1,)
    return {
        f"top{k}": sum(g.label in g.classes[:k] for g in guesses) / len(guesses) for k in places
    }


def _line(guess: Guess, classes: tuple[str, ...], known: bool) -> str:
    named = ", ".join(
        f"{classes[number]} {probability:.1%}"
        for number, probability in zip(guess.classes, guess.probabilities, strict=True)
    )
    truth = f" (is {classes[guess.label]})" if known else ""
    return f"{guess.name}{truth}: {named}"


def _row(guess: Guess, classes: tuple[str, ...], known: bool) -> dict[str, str]:
    row = {"image": guess.name}
    if known:
        row["class"] = classes[guess.label]
    best = zip(guess.classes, guess.probabilities, strict=True)
    for place, (number, probability) in enumerate(best, 1):
        row |= {f"guess {place}": classes[number], f"probability {place}": f"{probability:.6g}"}
    return row


def _nested(guesses: list[Guess], trained: Trained, known: bool) -> list[dict[str, object]]:
    classes = trained.run.classes
    return [
        {
            "image": guess.name,
            "class": classes[guess.label] if known else None,
            "guesses": [
                {"class": classes[number], "probability": probability}
                for number, probability in zip(guess.classes, guess.probabilities, strict=True)
            ],
        }
        for guess in guesses
    ]


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def _draw(trained: Trained, guesses: list[Guess], top1: float, args: Arguments) -> Path:
    """The picture of what is taken for what: beside the list, or in the run's folder, or here."""
    images = Path(args.images[0]).resolve().name
    if args.out is not None:
        path = Path(args.out).with_suffix(".png")
    else:
        inside = os.access(args.run, os.W_OK | os.X_OK)
        path = Path(args.run if inside else ".") / f"confusion-{images}.png"
    title = f"{images}: top-1 {top1:.1%} on {len(guesses):,} images"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        classes = trained.run.classes
        confusion_picture(confusion(guesses, len(classes)), classes, title, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def _unwritable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"{path} cannot be written ({error.strerror}); name another file with --out"
    )
