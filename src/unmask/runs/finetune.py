"""Fine-tuning: a classifier trained on labelled images, and what it scores on others."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from threading import Event

import numpy as np
import torch

from unmask.channels import Statistics
from unmask.contracts import Batch, ImageSource
from unmask.data.in_order import Unreadable, in_order
from unmask.data.subset import Subset
from unmask.runs.folder import RunFolder
from unmask.runs.training import Progress, training
from unmask.runs.transfer import TransferRun
from unmask.spec import to_json
from unmask.tasks.classify import Classifier
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import everyones, here, total
from unmask.training.hardware import Hardware, autocast

_BATCH = 128


def finetune(
    run: TransferRun,
    folder: RunFolder,
    source: ImageSource,
    classifier: Classifier,
    stop: Event,
    start: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Train a classifier, from a checkpoint if one is given, until the end or until `stop` is set."""
    device = torch.device(run.hardware.device)
    mean, std = run.statistics.tensors()
    change = partial(_changed, run, Statistics(mean.to(device), std.to(device)))
    return training(run, folder, source, classifier, stop, start, change)


def _changed(run: TransferRun, statistics: Statistics, batch: Batch, step: int) -> Batch:
    """The batch of a step after mixup, cutmix and erasing, and with its noise, drawn from (seed, step)."""
    recipe, key = run.recipe, (run.seed, step)
    batch = recipe.mixing(batch, len(run.classes), statistics, *key)
    return recipe.noise(batch, recipe.encoder.patch_size, statistics, step / run.steps, *key)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a classifier scores on images that it has not seen."""

    top1: float
    """Share of images whose class has the highest score."""

    top5: float
    """Share of images whose class is among the five highest scores."""

    images: int
    """Images tested on."""

    chance: float
    """What guessing would give."""

    left_out: int
    """Images that could not be read."""

    images_per_second: float
    """In testing."""


def accuracy_of(
    classifier: Classifier,
    source: ImageSource,
    run: TransferRun,
    hardware: Hardware,
    batch_size: int = _BATCH,
) -> tuple[Accuracy, Unreadable]:
    """Score a classifier on every image of a source, each counted once.

    Of several processes, each tests on its share of the images, and all get the same score; a classifier in
    shards must be given whole (`whole_of`).
    """
    started = time.perf_counter()
    unreadable: Unreadable = []
    hits, hits5, count = 0, 0, 0
    source = _share_of(source)
    tested = scored(classifier, source, run, hardware, unreadable, batch_size)
    for scores, labels, _ in tested if len(source) else ():
        best = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
        hits += int(best[:, 0].sum())
        hits5 += int(best.any(1).sum())
        count += len(labels)
    hits, hits5, count = total(torch.tensor([hits, hits5, count])).tolist()
    unreadable = [failure for failures in everyones(unreadable) for failure in failures]
    score = Accuracy(
        top1=hits / count,
        top5=hits5 / count,
        images=count,
        chance=1 / len(run.classes),
        left_out=len(unreadable),
        images_per_second=round(count / (time.perf_counter() - started), 2),
    )
    return score, unreadable


def whole_of(classifier: Classifier, run: TransferRun, folder: RunFolder) -> Classifier:
    """The classifier in one piece: read from the newest checkpoint, if processes share it."""
    newest, _ = folder.newest()
    if not run.hardware.shard or newest is None:
        return classifier
    classifier = run.build()
    classifier.load_state_dict(newest.read("model"))
    return classifier


def _share_of(source: ImageSource) -> ImageSource:
    """Every so-manieth image, beginning with the process's number; for one process alone, all of them."""
    processes = here()
    if processes.count == 1:
        return source
    return Subset(source, np.arange(processes.rank, len(source), processes.count))


@torch.inference_mode()
def scored(
    classifier: Classifier,
    source: ImageSource,
    run: TransferRun,
    hardware: Hardware,
    unreadable: Unreadable,
    batch_size: int = _BATCH,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """(scores of the classes, labels, positions) of a source's images, in order."""
    device, recipe = torch.device(hardware.device), run.recipe
    known = source.labels()
    classifier.to(device).eval()
    stream = in_order(
        source,
        recipe.test_views,
        recipe.image_size,
        run.statistics,
        unreadable,
        batch_size=batch_size,
        workers=hardware.workers,
    )
    for batch in stream:
        with autocast(device, hardware.precision):
            scores = classifier.logits(batch.images.to(device))
        labels = torch.from_numpy(known[batch.positions])
        yield scores.float().cpu(), labels, batch.positions


def write_accuracy(folder: RunFolder, score: Accuracy) -> None:
    """Keep a score beside the run."""
    folder.results.write_text(json.dumps(to_json(score), indent=1) + "\n")
