"""`unmask evaluate ENCODER DATA --protocol knn`: how good an encoder is, by one of seven protocols."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
import tyro
from rich.table import Table

from unmask.commands.arguments import parse
from unmask.commands.console import console, duration, loaded, notes
from unmask.data.kinds import find_source
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError, ResourceError, SettingsError
from unmask.pictures.ladder import ladder_curve
from unmask.recipes import TRANSFERS, Transfer, choose_transfer, find_transfer
from unmask.runs.evaluate import Frozen, evaluate, labelled_features, labelled_tokens
from unmask.runs.labelled import Labelled, draw_few, open_labelled
from unmask.runs.load import Model
from unmask.runs.start import shape_of
from unmask.runs.tuned import Asked, few, fitted, ladder, tuned_accuracy, with_blocks
from unmask.runs.weights import find_weights
from unmask.training.hardware import Hardware, best_precision, best_workers

Protocol = Literal["knn", "logistic", "linear", "attentive", "partial", "finetune", "ladder"]

_FEATURES = {
    "cls": "class token",
    "mean": "mean of patches",
    "patches": "patch tokens",
    "trained": "trained",
}
_MICRO_BATCH = 256
_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask evaluate`."""

    run: tyro.conf.Positional[str]
    """A run, or weights of unmask, a published MAE, timm or transformers."""

    data: tyro.conf.Positional[str]
    """Labelled images: a folder of class folders (train/ and test/ or val/ are used), or digits."""

    protocol: Protocol = "knn"
    """On frozen features: knn (cosine, k = 20, temperature 0.07), logistic (on scaled features), linear
    (the paper's probe), attentive (a learned query over patch tokens). Trained: partial (the last block),
    finetune (everything), ladder (0, half, 1, 2, 4, ... all blocks)."""

    labels: str = "all"
    """Labels of each class to learn from: numbers, percentages, or all, such as 1,5,10%,all."""

    seeds: int = _SEEDS
    """Draws of the labels, and of all that a protocol draws; once where nothing is drawn."""

    control: Literal["none", "random"] = "none"
    """Also score the same encoder as it was before training; for trained protocols, from scratch."""

    recipe: str | None = None
    """Recipe of trained protocols; chosen from the encoder if not given."""

    epochs: float | None = None
    """Epochs of trained protocols; the recipe's if not given."""

    out: str | None = None
    """Where to write the figures as JSON; the ladder's picture lies beside it as PNG (ladder.json, if not
    given)."""

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    seed: int = 0
    """Seed of the split, where the data have none; the first of the draws."""

    device: str = "auto"
    """Where to compute."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print scores as JSON."""


class Row(NamedTuple):
    """The scores of one arm, over all draws."""

    arm: str
    protocol: str
    feature: str
    labels: str
    accuracies: list[float]
    setting: str
    seconds: float
    images_per_second: float

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Standard deviation over the draws; 0 for one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(
        Arguments,
        arguments,
        "evaluate",
        "Say how good an encoder is for labelled images; nothing is masked.",
    )
    if args.seeds < 1:
        raise SettingsError(f"--seeds must be at least 1, got {args.seeds}")
    model = loaded(args.run, args.device)
    labelled = open_labelled(find_source(args.data, args.data_kind, *model.bands), args.seed)
    if labelled.train.channels != model.spec.channels:
        raise DataError(
            f"{args.run} was trained on {model.spec.channels} channels, and {args.data} has "
            f"{labelled.train.channels}"
        )
    names, labels = labelled.train.class_names, np.array(labelled.train.labels())
    for amount in _amounts(args):
        draw_few(labels, names, amount, args.seed)  # what cannot be drawn is said before any work
    frozen = args.protocol in get_args(Frozen)
    if frozen and (args.recipe or args.epochs):
        raise SettingsError(
            f"--recipe and --epochs are for partial, finetune and ladder; {args.protocol} has its own schedule"
        )
    unreadable: list[tuple[str, str]] = []
    counts = [len(labelled.train), len(labelled.test)]
    if frozen:
        rows = list(_frozen(args, model, labelled, counts, unreadable))
    else:
        rows = list(_trained(args, model, labelled))
    classes = len(names)
    about = {
        "run": args.run,
        "weights": model.about,
        "step": model.step,
        "data": args.data,
        "split": labelled.split,
        "train_images": counts[0],
        "test_images": counts[1],
        "classes": classes,
        "chance": 1 / classes,
        "left_out": len(unreadable),
    }
    result = {**about, "scores": [_figures(row) for row in rows]}
    written = _write(args, result, rows)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    _print(about, rows, unreadable)
    for path in written:
        console.print(f"written: {path}")
    return 0


def _amounts(args: Arguments) -> list[str]:
    return args.labels.split(",")


def _draws(args: Arguments, amount: str) -> list[int]:
    """The seeds of an amount of labels; one where nothing is drawn."""
    fixed = amount == "all" and args.protocol in ("knn", "logistic")
    return list(range(args.seed, args.seed + (1 if fixed else args.seeds)))


def _frozen(
    args: Arguments,
    model: Model,
    labelled: Labelled,
    counts: list[int],
    unreadable: list[tuple[str, str]],
) -> Iterator[Row]:
    """Scores of frozen features, which are computed once for each encoder."""
    protocol, spec = cast(Frozen, args.protocol), model.spec
    classes = len(labelled.train.class_names)
    arms: dict[str, VisionTransformer] = {"pretrained": model.encoder}
    if args.control == "random":
        untrained = spec.build_encoder(model.run.seed if model.run else 0)
        arms["random initialisation"] = untrained.to(model.device).eval()
    for arm, encoder in arms.items():
        started = time.perf_counter()
        about = (encoder, labelled, spec.image_size, spec.statistics, model.device)
        train, test = labelled_features(*about)
        tokens = labelled_tokens(*about) if protocol == "attentive" else None
        images = len(train.labels) + len(test.labels)
        speed = images / (time.perf_counter() - started)
        counts[:] = [len(train.labels), len(test.labels)]
        unreadable[:] = train.unreadable + test.unreadable
        for amount in _amounts(args):
            started = time.perf_counter()
            found: dict[str, list[float]] = {}
            settings: dict[str, str] = {}
            for seed in _draws(args, amount):
                drawn = draw_few(train.labels.numpy(), labelled.train.class_names, amount, seed)
                chosen = torch.from_numpy(drawn)
                some = (tokens[0][chosen], tokens[1]) if tokens else None
                scores = evaluate(
                    train.rows(chosen), test, protocol, classes, tokens=some, seed=seed
                )
                for score in scores:
                    found.setdefault(score.feature, []).append(score.accuracy)
                    settings[score.feature] = score.setting
            seconds = time.perf_counter() - started
            for feature, accuracies in found.items():
                setting = settings[feature]
                yield Row(arm, protocol, feature, amount, accuracies, setting, seconds, speed)


def _trained(args: Arguments, model: Model, labelled: Labelled) -> Iterator[Row]:
    """Scores after training the encoder, or parts of it."""
    recipe = _recipe(args, model)
    device = model.device
    hardware = Hardware(
        device=str(device),
        precision=best_precision(device),
        workers=best_workers(device, labelled.train.in_memory),
        threads=torch.get_num_threads(),
        micro_batch=min(_MICRO_BATCH, recipe.batch_size),
    )
    data = find_source(args.data, args.data_kind, *model.bands)
    arms = {"pretrained": find_weights(args.run).weights}
    everything = {**arms, "from scratch": None} if args.control == "random" else arms
    depth = recipe.encoder.depth
    rungs = {"partial": ["1"], "finetune": ["all"], "ladder": list(ladder(depth))}[args.protocol]
    for arm, weights in everything.items():
        for amount in _amounts(args):
            for rung in rungs:
                if weights is None and rung != "all":
                    continue  # a frozen part of a random encoder is no training from scratch
                asked = Asked(
                    with_blocks(recipe, rung),
                    weights,
                    data,
                    labelled,
                    model.spec.statistics,
                    hardware,
                )
                started = time.perf_counter()
                draws = _draws(args, amount)
                notes.print(
                    f"{arm}, blocks trained: {rung}, labels: {amount} ({len(draws)} draws) ..."
                )
                scores = [tuned_accuracy(asked, amount, seed) for seed in draws]
                seconds = time.perf_counter() - started
                images = len(few(labelled, amount, args.seed).train)
                fit = fitted(recipe, images)
                words = f"blocks: {rung}; {fit.epochs:g} epochs, batch {fit.batch_size}"
                speed = len(draws) * images * fit.epochs / seconds
                accuracies = [score.top1 for score in scores]
                yield Row(arm, args.protocol, rung, amount, accuracies, words, seconds, speed)


def _recipe(args: Arguments, model: Model) -> Transfer:
    encoder = model.spec.encoder
    name = args.recipe or choose_transfer(encoder)
    recipe = find_transfer(name)
    if args.recipe is None:
        recipe = replace(recipe, encoder=encoder, image_size=model.spec.image_size)
        others = ", ".join(other for other in TRANSFERS if other != name)
        notes.print(f"recipe {name}; --recipe takes another: {others}")
    elif recipe.encoder != encoder:
        raise SettingsError(
            f"the encoder has {shape_of(encoder)}, and recipe {name} is for {shape_of(recipe.encoder)}; "
            "leave out --recipe to take one that fits"
        )
    return recipe if args.epochs is None else replace(recipe, epochs=args.epochs)


def _figures(row: Row) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "protocol": row.protocol,
        "feature": row.feature,
        "labels": row.labels,
        "accuracy": row.mean,
        "spread": row.spread,
        "accuracies": row.accuracies,
        "setting": row.setting,
        "seconds": round(row.seconds, 3),
        "images_per_second": round(row.images_per_second, 1),
    }


def _write(args: Arguments, result: dict[str, Any], rows: list[Row]) -> list[Path]:
    """Write what was asked for: figures, and the ladder's picture of the first amount of labels."""
    if args.out is None and args.protocol != "ladder":
        return []
    path = Path(args.out or "ladder.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        if args.protocol != "ladder":
            return [path]
        picture = path.with_suffix(".png")
        mine = [row for row in rows if row.arm == "pretrained"]
        rungs = list(dict.fromkeys(row.feature for row in mine))
        curves = {
            f"labels: {amount}": [(r.mean, r.spread) for r in mine if r.labels == amount]
            for amount in _amounts(args)
        }
        ladder_curve(rungs, curves, result["chance"], picture)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written ({error.strerror}); name another") from None
    return [path, picture]


def _print(about: dict[str, Any], rows: list[Row], unreadable: list[tuple[str, str]]) -> None:
    console.print(
        f"{about['run']} ({about['weights']}) on {about['data']}: {about['train_images']:,} images "
        f"to learn from, {about['test_images']:,} to test on ({about['split']}), "
        f"{about['classes']} classes"
    )
    table = Table("encoder", "protocol", "feature", "labels", "accuracy")
    for row in rows:
        several = f" ± {row.spread:.1%}" if len(row.accuracies) > 1 else ""
        feature = _FEATURES.get(row.feature, f"{row.feature} trained")
        table.add_row(
            row.arm,
            row.protocol,
            feature,
            row.labels,
            f"{row.mean:.1%}{several}",
        )
    table.add_row("chance", "", "", "", f"{about['chance']:.1%}")
    console.print(table)
    for setting in dict.fromkeys(row.setting for row in rows):
        console.print(f"setting: {setting}")
    speed, seconds = rows[0].images_per_second, {row.seconds for row in rows}
    console.print(f"time: {duration(sum(seconds))}, {speed:,.0f} images/s through the encoder")
    draws = max(len(row.accuracies) for row in rows)
    if draws > 1:
        console.print(f"mean ± standard deviation over {draws} draws")
    if unreadable:
        name, reason = unreadable[0]
        console.print(f"{len(unreadable)} images left out, the first {name}: {reason}")
