"""Accuracy after fine-tuning, without a run that stays: for comparisons over labels, seeds and blocks."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np

from unmask.contracts import ChannelStatistics
from unmask.data import AnySource
from unmask.formats.model import Weights
from unmask.recipes import Transfer
from unmask.runs.finetune import Accuracy, accuracy_of, finetune
from unmask.runs.folder import RunFolder
from unmask.runs.labelled import Labelled, Part, draw_few
from unmask.runs.transfer import new_transfer
from unmask.training.hardware import Hardware
from unmask.training.schedules import fitting_batch


class Asked(NamedTuple):
    """What to fine-tune on what."""

    recipe: Transfer
    weights: Weights | None
    """None for training from scratch."""
    data: AnySource
    labelled: Labelled
    statistics: ChannelStatistics
    hardware: Hardware


def few(labelled: Labelled, amount: str, seed: int) -> Labelled:
    """The same test images, and a few labels of each class to learn from."""
    train = labelled.train
    rows = draw_few(np.array(train.labels()), train.class_names, amount, seed)
    return labelled._replace(train=Part(train, rows))


def fitted(recipe: Transfer, images: int) -> Transfer:
    """The recipe with a batch that fits so many images, and a warm-up of a tenth of its epochs at most."""
    warmup = min(recipe.schedule.warmup_epochs, recipe.epochs / 10)
    return replace(
        recipe,
        batch_size=fitting_batch(recipe.batch_size, images),
        schedule=replace(recipe.schedule, warmup_epochs=warmup),
    )


def tuned_accuracy(asked: Asked, amount: str, seed: int) -> Accuracy:
    """Test accuracy after fine-tuning on some labels of each class; the seed draws labels, head and order."""
    labelled = few(asked.labelled, amount, seed)
    recipe = fitted(asked.recipe, len(labelled.train))
    run = new_transfer(
        "evaluation",
        recipe,
        asked.data,
        labelled,
        asked.statistics,
        replace(asked.hardware, micro_batch=min(asked.hardware.micro_batch, recipe.batch_size)),
        init="given" if asked.weights else None,
        seed=seed,
        save_every_minutes=1e6,
        max_set_aside=1.0,
    )
    classifier = run.build(asked.weights)
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(Path(root) / "run")
        folder.create(run)
        for _ in finetune(run, folder, labelled.train, classifier, Event()):
            pass
    return accuracy_of(classifier, labelled.test, run, run.hardware)[0]


def ladder(depth: int) -> Iterator[str]:
    """Amounts of trained blocks to compare, as in MAE's figure 9: 0, half, 1, 2, 4, ... and all of them."""
    yield from ("0", "half")
    blocks = 1
    while blocks < depth:
        yield str(blocks)
        blocks *= 2
    yield "all"


def with_blocks(recipe: Transfer, trained_blocks: str) -> Transfer:
    """The recipe with another part of the encoder trained."""
    return replace(recipe, task=replace(recipe.task, trained_blocks=trained_blocks))
