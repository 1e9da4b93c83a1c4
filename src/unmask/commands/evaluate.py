"""`unmask evaluate ENCODER DATA --protocol knn`: how good an encoder is, by one of seven protocols."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from unmask.console.arguments import parse
from unmask.console.output import console, loaded, notes
from unmask.console.scores import (
    Judged,
    comparison_tables,
    say_comparison,
    say_scores,
    write_comparison,
    write_scores,
)
from unmask.data.in_order import Unreadable
from unmask.data.kinds import find_source
from unmask.data.labelled import draw_few, open_labelled
from unmask.errors import DataError, SettingsError
from unmask.evaluation.frozen import FROZEN, Control, Row
from unmask.evaluation.protocols import (
    Protocol,
    Question,
    Subject,
    augmented_recipes,
    frozen_arms,
    frozen_rows,
    recipes_of,
    trained_arms,
)
from unmask.recipes import TRANSFERS, Transfer, choose_transfer, find_transfer
from unmask.runs.init import shape_of
from unmask.runs.model import Model
from unmask.training.hardware import Hardware, best_precision, best_workers
from unmask.traits import Noted

_MICRO_BATCH = 256
_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask evaluate`."""

    run: tyro.conf.Positional[str | None] = None
    """A run, or weights of unmask, a published MAE, timm or transformers."""

    data: tyro.conf.Positional[str | None] = None
    """Labelled images: a folder of class folders (train/ and test/ or val/ are used), or digits."""

    protocol: Protocol = "knn"
    """On frozen features: knn (cosine, k = 20, temperature 0.07), logistic (on scaled features), linear
    (the paper's probe), attentive (a learned query over patch tokens). Trained: partial (the last block),
    finetune (everything), ladder (0, half, 1, 2, 4, ... all blocks)."""

    labels: str = "all"
    """Labels of each class to learn from: numbers, percentages, or all, such as 1,5,10%,all."""

    seeds: int = _SEEDS
    """Draws of the labels, and of all that a protocol draws; once where nothing is drawn."""

    control: Control = "none"
    """What to score beside it. random: drawn weights, treated exactly alike, so that what is frozen stays
    random; scratch: all blocks trained from drawn weights, for as many steps as fine-tuning; or both."""

    augment: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For linear and attentive: other crops and flips pass the frozen encoder at every step, as in the
    paper, instead of fixed features. Slow."""

    encoders: str | None = None
    """Several encoders, A,B,C, in place of one or beside it: a table of method against model size."""

    recipe: str | None = None
    """Recipe of trained protocols; chosen from the encoder if not given."""

    epochs: float | None = None
    """Epochs of trained protocols; the recipe's if not given."""

    out: str | None = None
    """Where to write the figures as JSON, and a picture beside it; in the run's folder `evaluations` if not
    given, or in one here for other weights."""

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    labels_file: str | None = None
    """A CSV or Parquet file with a column file_name and the classes of each image (a name, a number, a;b,
    or a column of 0 and 1 for each class), in place of class folders."""

    seed: int = 0
    """Seed of the split, where the data have none; the first of the draws."""

    device: str = "auto"
    """Where to compute."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print scores as JSON."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(
        Arguments,
        arguments,
        "evaluate",
        "Say how good an encoder is for labelled images; nothing is masked.",
    )
    paths, data = _words(args)
    question = Question(
        protocol=args.protocol,
        labels=tuple(args.labels.split(",")),
        seeds=args.seeds,
        seed=args.seed,
        control=args.control,
    )
    _check(args, question)
    models = {path: loaded(path, args.device) for path in paths}
    subjects = [_subject(args, question, path, model, data) for path, model in models.items()]
    judged = [_judge(args, question, subject, data) for subject in subjects]
    if len(judged) > 1:
        result = {"encoders": [one.result() for one in judged]}
        written = write_comparison(judged, _name(args, data), args.out)
    else:
        result = judged[0].result()
        written = write_scores(judged[0], _name(args, data), args.out)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    for one in judged:
        say_scores(one)
    if len(judged) > 1:
        say_comparison(comparison_tables(judged))
    for path in written:
        console.print(f"written: {path}")
    return 0


def _words(args: Arguments) -> tuple[list[str], str]:
    """The encoders, and the images."""
    words = [word for word in (args.run, args.data) if word is not None]
    several = [name.strip() for name in (args.encoders or "").split(",") if name.strip()]
    if len(words) + min(1, len(several)) < 2:
        raise SettingsError(
            "which encoder, and which images? `unmask evaluate runs/NAME FOLDER`, or `unmask evaluate FOLDER "
            "--encoders runs/A,runs/B`; FOLDER holds a folder for each class"
        )
    paths = [*words[:-1], *several]
    if len(set(paths)) < len(paths):
        raise SettingsError(f"an encoder is named twice: {', '.join(paths)}")
    return paths, words[-1]


def _check(args: Arguments, question: Question) -> None:
    """Refuse flags that would do nothing."""
    frozen = args.protocol in FROZEN
    trains = not frozen or question.scratch
    if args.recipe and not trains:
        raise SettingsError(
            "--recipe is for partial, finetune, ladder and --control scratch; "
            f"{args.protocol} has its own schedule"
        )
    if args.epochs is not None and not (trains or args.augment):
        raise SettingsError(
            "--epochs is for partial, finetune, ladder, --augment and --control scratch; "
            f"{args.protocol} has its own schedule"
        )
    if args.epochs is not None and not 0 < args.epochs < float("inf"):
        raise SettingsError(f"--epochs must be above 0 and finite, got {args.epochs}")


def _subject(args: Arguments, question: Question, path: str, model: Model, data: str) -> Subject:
    """The encoder and its images, checked before any work."""
    source = find_source(data, args.data_kind, *model.bands, labels_file=args.labels_file)
    labelled = open_labelled(source, args.seed, several_classes="taken")
    for note in labelled.train.notes if isinstance(labelled.train, Noted) else ():
        notes.print(f"note: {note}")
    if labelled.train.channels != model.spec.channels:
        raise DataError(
            f"{path} was trained on {model.spec.channels} channels, and {data} has "
            f"{labelled.train.channels}"
        )
    labels = labelled.train.labels()
    for amount in question.labels:
        draw_few(labels, labelled.train.annotations.names, amount, args.seed)
    subject = Subject(path, model, source, labelled)
    if args.augment:
        augmented_recipes(question, subject, args.epochs)
    return subject


def _judge(args: Arguments, question: Question, subject: Subject, data: str) -> Judged:
    """All scores of an encoder, control included."""
    labelled = subject.labelled
    rows: list[Row] = []
    unreadable: Unreadable = []
    counts = (len(labelled.train), len(labelled.test))
    if args.protocol in FROZEN and not args.augment:
        for arm in frozen_arms(question, subject):
            for note in arm.notes:
                notes.print(f"note: {note}")
            rows += frozen_rows(arm, question, labelled.train.annotations)
            unreadable = [*arm.train.unreadable, *arm.test.unreadable]
            counts = (len(arm.train.labels), len(arm.test.labels))
    rows += _trained(args, question, subject)
    return Judged(question, subject, data, rows, counts, unreadable)


def _trained(args: Arguments, question: Question, subject: Subject) -> Iterator[Row]:
    if args.protocol in FROZEN and not (args.augment or question.scratch):
        return
    recipe = _recipe(args, subject.model)
    recipes = (
        augmented_recipes(question, subject, args.epochs)
        if args.augment
        else recipes_of(question, subject, recipe)
    )
    device = subject.model.device
    hardware = Hardware(
        device=str(device),
        precision=best_precision(device),
        workers=best_workers(device, subject.labelled.train.in_memory),
        threads=torch.get_num_threads(),
        micro_batch=_MICRO_BATCH,
    )
    for arm in trained_arms(question, subject, hardware, recipes, recipe):
        notes.print(arm.words)
        yield arm.row()


def _recipe(args: Arguments, model: Model) -> Transfer:
    """What an encoder is fine-tuned with, or trained from scratch."""
    encoder = model.spec.encoder
    name = args.recipe or choose_transfer(encoder)
    recipe = find_transfer(name)
    if args.recipe is None:
        recipe = replace(recipe, encoder=encoder, image_size=model.spec.image_size)
        if not args.augment:
            others = ", ".join(other for other in TRANSFERS if other != name)
            notes.print(f"recipe {name}; --recipe takes another: {others}")
    elif recipe.encoder != encoder:
        raise SettingsError(
            f"the encoder has {shape_of(encoder)}, and recipe {name} is for {shape_of(recipe.encoder)}; "
            "leave out --recipe to take one that fits"
        )
    return recipe if args.epochs is None else replace(recipe, epochs=args.epochs)


def _name(args: Arguments, data: str) -> str:
    """What the files of an answer are called: by all that changes the question."""
    words = [args.protocol, Path(data).resolve().name if data != "digits" else data]
    if args.augment:
        words.append("augmented")
    if args.labels != "all":
        words.append(args.labels.replace(",", "-").replace("%", "pct"))
    if args.control != "none":
        words.append(args.control)
    if args.recipe:
        words.append(Path(args.recipe.rpartition(":")[2]).name)
    if args.epochs:
        words.append(f"{args.epochs:g}ep")
    return "-".join(words)
