"""CIFAR-10 with few labels, and noise in fine-tuning: the encoder and the trainings of studies/transfer.md.

    unmask pretrain cifar10 --recipe studies/transfer.py:ENCODER --threads 1 --workers 0 --out runs/encoder
    python studies/transfer.py runs/encoder cifar10 --out studies/transfer.jsonl
    python studies/transfer.py --draw studies/transfer.jsonl

A training that OUT already has is not made again, so the second command can be given again at any time.
"""

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from unmask.contracts import Size
from unmask.data.few_labels import few
from unmask.data.kinds import find_source
from unmask.data.labelled import Labelled, Subset, open_labelled
from unmask.data.mixing import UNMIXED
from unmask.data.noise import Noise, PatchKeep
from unmask.data.views import CenterCrop, RandomCrop
from unmask.encoders.vit import ViT
from unmask.evaluation.features import features
from unmask.evaluation.frozen import evaluate
from unmask.evaluation.tuning import TuningSetup, tune, with_blocks
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.recipes import Transfer
from unmask.recipes.mae import MAE_MINI4
from unmask.runs.weights import find_weights
from unmask.tasks import Classify
from unmask.training.hardware import Hardware
from unmask.training.optimizers import LayerwiseAdamW
from unmask.training.schedules import WarmupCosine

ENCODER = replace(
    MAE_MINI4,
    encoder=ViT(patch_size=4, embed_dim=128, depth=6, num_heads=4),
    objective=MAE(decoder=SelfAttentionDecoder(depth=1, embed_dim=128, num_heads=4)),
    epochs=20,
)
"""6 blocks, 128 wide, patches of 4 pixels: what 45 minutes of two cores allow."""

SCENES = replace(
    ENCODER, encoder=replace(ENCODER.encoder, patch_size=8), image_size=Size(64, 64), batch_size=64
)
"""The same for aerial scenes at 64 pixels, with patches of 8."""

FULL = Transfer(
    encoder=ENCODER.encoder,
    task=Classify(label_smoothing=0.1, drop_path=0.1),
    views=RandomCrop(smallest_share=0.4, flip_probability=0.5),
    test_views=CenterCrop(),
    mixing=UNMIXED,
    optimizer=LayerwiseAdamW(layer_decay=0.75),
    schedule=WarmupCosine(base_lr=8e-3, warmup_epochs=0.0),
    image_size=Size(32, 32),
    batch_size=32,
    epochs=1,
)
"""Crops and flips alone, so that what noise does is seen apart from what mixing does."""

RISING = PatchKeep(first=0.5, last=1.0)

ARMS = {
    "scratch": replace(FULL, optimizer=LayerwiseAdamW(layer_decay=1.0)),
    "full": FULL,
    "one block": with_blocks(FULL, "1"),
    "linear": with_blocks(FULL, "0"),
    "masked": replace(FULL, noise=Noise(patch_keep=RISING)),
    "swapped": replace(FULL, noise=Noise(patch_keep=RISING, instead="patches")),
    "pixel noise": replace(FULL, noise=Noise(pixel_noise=0.3)),
}

SHARES = {"1%": (0, 1, 2), "10%": (0, 1, 2), "all": (0,)}
"""Labels of each class, and the seeds."""

STEPS = 400
"""Of a training with few labels; with all it is one epoch."""

SEEN = 5000
"""Training images scored, at most."""


def tuned(
    arm: str, weights: Any, data: Any, labelled: Labelled, share: str, seed: int
) -> dict[str, Any]:
    """Train a classifier and score it on images that it learned from and on others."""
    hardware = Hardware(
        device="cpu", precision="float32", workers=0, threads=1, micro_batch=FULL.batch_size
    )
    given = None if arm == "scratch" else weights
    recipe = partial(lasting, ARMS[arm])
    asked = TuningSetup(recipe, given, data, labelled, weights.spec.statistics, hardware)
    started, used = time.perf_counter(), time.process_time()
    found = tune(asked, share, seed)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    learned = found.labelled.train
    seen = Subset(learned, np.arange(len(learned))[:: max(1, len(learned) // SEEN)])
    return {
        "steps": found.run.steps,
        "train": found.score_on(seen).value,
        "test": found.score_on(labelled.test).value,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
    }


def lasting(recipe: Transfer, images: int) -> Transfer:
    """The recipe for as many epochs as `STEPS` make, or its own with all labels; a tenth of them warms up."""
    few_labels = images < 10 * SEEN
    epochs = STEPS * recipe.batch_size / images if few_labels else recipe.epochs
    warmup = replace(recipe.schedule, warmup_epochs=epochs / 10)
    return replace(recipe, epochs=epochs, schedule=warmup)


def probed(encoder: Any, statistics: Any, labelled: Labelled, seed: int) -> dict[str, Any]:
    """The paper's linear probe, on images that it learned from and on others."""
    started, used = time.perf_counter(), time.process_time()
    known, asked = (
        features(encoder, part, FULL.image_size, statistics, torch.device("cpu"))
        for part in (labelled.train, labelled.test)
    )
    classes = labelled.train.annotations
    (test,) = evaluate(known, asked, "linear", classes, seed=seed)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    (train,) = evaluate(known, known, "linear", classes, seed=seed)
    return {
        "steps": test.setting,
        "train": train.score.value,
        "test": test.score.value,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
    }


def study(encoder: str, path: str, arms: list[str], out: Path) -> None:
    """Train what is not trained yet, one line of OUT each."""
    torch.set_num_threads(1)
    found, data = find_weights(encoder), find_source(path)
    weights, labelled = found.weights, open_labelled(data, 0)
    rows = read(out)
    done = {(row["arm"], row["labels"], row["seed"]) for row in rows}
    every = [
        (seed, share, arm) for share, seeds in SHARES.items() for seed in seeds for arm in arms
    ]
    for seed, share, arm in sorted(every, key=lambda one: one[0]):
        if (arm, share, seed) in done:
            continue
        if arm == "linear":
            encoder_now, part = weights.build_encoder().eval(), few(labelled, share, seed)
            result = probed(encoder_now, weights.spec.statistics, part, seed)
        else:
            result = tuned(arm, weights, data, labelled, share, seed)
        row = {"arm": arm, "labels": share, "seed": seed, **result}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def read(out: Path) -> list[dict[str, Any]]:
    """The trainings made so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def draw(out: Path) -> None:
    """Print the table, and draw it beside OUT."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read(out)
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(SHARES), sharey=True)
    print("| labels | arm | test | train | gap | processor time | relative to full |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for panel, share in zip(panels, SHARES, strict=True):
        here = [row for row in rows if row["labels"] == share]
        whole = mean(row["processor_seconds"] for row in here if row["arm"] == "full")
        for place, arm in enumerate(ARMS):
            mine = [row for row in here if row["arm"] == arm]
            if not mine:
                continue
            test, train = [r["test"] for r in mine], [r["train"] for r in mine]
            spread = stdev(test) if len(test) > 1 else 0.0
            seconds = mean(row["processor_seconds"] for row in mine)
            told = f" ± {100 * spread:.1f}" if len(test) > 1 else ""
            gap = 100 * (mean(train) - mean(test))
            print(
                f"| {share} | {arm} | {100 * mean(test):.1f}{told} % | {100 * mean(train):.1f} % | {gap:.1f} "
                f"| {seconds:.0f} s | {seconds / whole:.2f} |"
            )
            panel.barh(place, 100 * mean(train), color="0.85", label="training images")
            panel.barh(
                place,
                100 * mean(test),
                height=0.5,
                xerr=100 * spread,
                color="C0",
                label="test images",
            )
        panel.set_title(f"{share} of the labels" if share != "all" else "all labels")
        panel.set_yticks(range(len(ARMS)), list(ARMS))
        panel.set_xlim(0, 100)
        panel.set_xlabel("accuracy (%)")
    panels[0].invert_yaxis()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles[:2], names[:2], loc="outside lower center", ncols=2, frameon=False)
    FigureCanvasAgg(figure).print_png(str(out.with_suffix(".png")))


def main() -> None:
    """Run the study, or draw what it has found."""
    parser = argparse.ArgumentParser(description="few labels and noise on CIFAR-10")
    parser.add_argument("encoder", nargs="?", help="run of pretraining")
    parser.add_argument("data", nargs="?", help="CIFAR-10 as class folders, train/ and test/")
    parser.add_argument("--out", type=Path, default=Path("studies/transfer.jsonl"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--draw", type=Path, help="print and draw this file")
    args = parser.parse_args()
    if args.draw:
        draw(args.draw)
    elif args.data is None:
        parser.error("give ENCODER and DATA, or --draw FILE")
    else:
        study(args.encoder, args.data, args.arms, args.out)


if __name__ == "__main__":
    main()
