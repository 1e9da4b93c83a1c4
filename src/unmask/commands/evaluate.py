"""`unmask evaluate RUN DATA --protocol knn`: scores of frozen features."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.table import Table

from unmask.commands.arguments import parse
from unmask.commands.console import console, loaded
from unmask.data.kinds import find_source
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError
from unmask.runs.evaluate import Protocol, Score, evaluate, labelled_features
from unmask.runs.labelled import open_labelled

_FEATURES = {"cls": "class token", "mean": "mean of patches"}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask evaluate`."""

    run: tyro.conf.Positional[str]
    """Folder of a run."""

    data: tyro.conf.Positional[str]
    """Labelled images: a folder of class folders (train/ and test/ or val/ are used), or digits."""

    protocol: Protocol = "knn"
    """knn (cosine, k = 20, temperature 0.07) or logistic (on scaled features)."""

    control: Literal["none", "random"] = "none"
    """Also score the same encoder as it was before training."""

    data_kind: str | None = None
    """What DATA is (folder, shards, parquet, tiff, digits); seen from what is there if not given."""

    seed: int = 0
    """Seed of the split, where the data have none."""

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
        "Score an encoder's frozen features on labelled images; nothing is masked.",
    )
    model = loaded(args.run, args.device)
    labelled = open_labelled(find_source(args.data, args.data_kind, *model.bands), args.seed)
    if labelled.train.channels != model.spec.channels:
        raise DataError(
            f"{args.run} was trained on {model.spec.channels} channels, and {args.data} has "
            f"{labelled.train.channels}"
        )
    classes = len(labelled.train.class_names)
    arms: dict[str, VisionTransformer] = {"pretrained": model.encoder}
    if args.control == "random":
        untrained = model.spec.build_encoder(model.run.seed if model.run else 0)
        arms["random initialisation"] = untrained.to(model.device).eval()

    scores: dict[str, list[Score]] = {}
    counts = (0, 0)
    unreadable: list[tuple[str, str]] = []
    for name, encoder in arms.items():
        with torch.inference_mode():
            spec = model.spec
            train, test = labelled_features(
                encoder, labelled, spec.image_size, spec.statistics, model.device
            )
        scores[name] = evaluate(train, test, args.protocol, classes)
        counts, unreadable = (
            (len(train.labels), len(test.labels)),
            train.unreadable + test.unreadable,
        )
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
    if args.json:
        rows = [{"arm": arm, **_row(score)} for arm, found in scores.items() for score in found]
        print(json.dumps({**about, "scores": rows}, indent=1))
        return 0
    _print(about, scores, unreadable)
    return 0


def _row(score: Score) -> dict[str, Any]:
    return dict(score._asdict())


def _print(
    about: dict[str, Any], scores: dict[str, list[Score]], unreadable: list[tuple[str, str]]
) -> None:
    console.print(
        f"{about['run']} ({about['weights']}) on {about['data']}: {about['train_images']:,} images "
        f"to learn from, {about['test_images']:,} to test on ({about['split']}), "
        f"{about['classes']} classes"
    )
    table = Table("encoder", "protocol", "feature", "accuracy", "setting")
    for arm, found in scores.items():
        for score in found:
            accuracy = f"{score.accuracy:.1%}"
            table.add_row(arm, score.protocol, _FEATURES[score.feature], accuracy, score.setting)
    table.add_row("chance", "", "", f"{about['chance']:.1%}", "")
    console.print(table)
    if unreadable:
        name, reason = unreadable[0]
        console.print(
            f"{len(unreadable)} images left out, the first {name}: {reason}", markup=False
        )
