"""Fine-tuning in a temporary folder, to compare scores over labels, seeds and trained blocks."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.annotations import AnyAnnotations
from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.few_labels import few
from unmask.data.labelled import Labelled
from unmask.data.mixing import UNMIXED
from unmask.data.views import AugmentedCrop, RandomCrop
from unmask.evaluation.frozen import Probe, right_answers
from unmask.formats.model import ModelSpec, Weights
from unmask.progress import counted
from unmask.recipes import TRANSFERS, Transfer, choose_transfer
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.run import new_run
from unmask.runs.training import training
from unmask.tasks import Classify, task_for
from unmask.tasks.task import Score
from unmask.training.hardware import Hardware
from unmask.training.optimizers import LayerwiseAdamW
from unmask.training.schedules import WarmupCosine, epochs_in_words, fitting_batch, steps_of


class TuningSetup(NamedTuple):
    """The recipe, weights, images and hardware of fine-tuning."""

    recipe: Callable[[int], Transfer]
    """A function of the number of training images."""
    weights: Weights | None
    """None for random weights, initialised from the seed."""
    data: AnySource
    labelled: Labelled
    statistics: ChannelStatistics
    hardware: Hardware


def fitted(recipe: Transfer, images: int) -> Transfer:
    """The recipe with a batch size for this number of images, and a warm-up of at most a tenth of its epochs."""
    warmup = min(recipe.schedule.warmup_epochs, recipe.epochs / 10)
    return replace(
        recipe,
        batch_size=fitting_batch(recipe.batch_size, images),
        schedule=replace(recipe.schedule, warmup_epochs=warmup),
    )


class Finetuned(NamedTuple):
    """A fine-tuned module with its images."""

    tuned: Tuned
    hardware: Hardware
    labelled: Labelled
    """The training and test images."""

    def score_on(self, source: ImageSource) -> Score:
        """The score on some images."""
        return self.tuned.score(source, self.hardware).score

    def scored_on(self, source: ImageSource) -> tuple[Score, NDArray[np.bool_] | None]:
        """The score on some images, and which of them are answered right (see `right_answers`)."""
        job = self.tuned.job
        scoring = job.recipe.task.scoring(job.annotations)
        right: list[NDArray[np.bool_] | None] = []
        for outputs, truth, _ in self.tuned.outputs(source, self.hardware, []):
            scoring.add(outputs, truth)
            right.append(right_answers(outputs, truth))
        known = [batch for batch in right if batch is not None]
        return scoring.result(), np.concatenate(known) if known else None


def tune(setup: TuningSetup, amount: str, seed: int) -> Finetuned:
    """Fine-tune with an amount of labels per class; the seed determines labels, head and order."""
    labelled = few(setup.labelled, amount, seed)
    recipe = setup.recipe(len(labelled.train))
    job = Finetune(
        recipe=recipe,
        annotations=labelled.train.annotations,
        init="given" if setup.weights else None,
    )
    run = new_run(
        "evaluation",
        job,
        setup.data,
        labelled.train,
        setup.statistics,
        replace(setup.hardware, micro_batch=min(setup.hardware.micro_batch, recipe.batch_size)),
        seed=seed,
        save_every_minutes=1e6,
        max_set_aside=1.0,
    )
    module = run.build(setup.weights)
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(Path(root) / "run")
        folder.create(run)
        reports = training(run, folder, labelled.train, module, Event())
        for _ in counted(reports, run.steps, "training"):
            pass
    return Finetuned(Tuned(module, job, run.statistics), run.hardware, labelled)


def from_scratch(recipe: Transfer) -> Transfer:
    """The recipe for training all blocks from random weights: as long, but without layer-wise learning rates.

    Layer-wise decay gives low learning rates to the first layers, which only suits pretrained layers.
    """
    optimizer = recipe.optimizer
    if isinstance(optimizer, LayerwiseAdamW):
        optimizer = replace(optimizer, layer_decay=1.0)
    return with_blocks(replace(recipe, optimizer=optimizer), "all")


def augmented(
    probe: Probe,
    spec: ModelSpec,
    annotations: AnyAnnotations,
    epochs: float | None,
    images: int,
) -> Transfer:
    """A probe on a frozen encoder with new crops and flips at every step (MAE table 10).

    Steps, batch size and learning rate are those of the probe on fixed features, unless `epochs` is given. Crops and
    test views are those of fine-tuning such an encoder.
    """
    tuned = TRANSFERS[choose_transfer(spec.encoder)].recipe
    if isinstance(tuned.views, AugmentedCrop):
        views = RandomCrop(
            smallest_share=tuned.views.smallest_share, flip_probability=tuned.views.flip_probability
        )
    else:
        views = RandomCrop(flip_probability=0.0)  # digits: left and right matter
    steps, batch_size = probe.steps(images)
    epochs = epochs or steps * batch_size / images
    return Transfer(
        encoder=spec.encoder,
        task=task_for(Classify(head=probe.head, trained_blocks="0"), annotations),
        views=views,
        test_views=tuned.test_views,
        mixing=UNMIXED,
        optimizer=probe.optimizer,
        schedule=WarmupCosine(base_lr=probe.peak * 256 / batch_size, warmup_epochs=epochs / 9),
        image_size=spec.image_size,
        batch_size=batch_size,
        epochs=epochs,
    )


def words_of(recipe: Transfer, images: int) -> str:
    """The training in words."""
    steps = steps_of(recipe.epochs, images, recipe.batch_size)
    words = f"{steps:,} {'step' if steps == 1 else 'steps'} of {recipe.batch_size:,} ({epochs_in_words(recipe.epochs)})"
    if recipe.task.trained_blocks == "0" and isinstance(recipe.views, RandomCrop):
        peak = recipe.schedule.peak(recipe.batch_size)
        return f"{words}, rate {peak:g}, new crops and flips at every step"
    return f"blocks trained: {recipe.task.trained_blocks}, {words}"


def ladder(depth: int) -> Iterator[str]:
    """Numbers of trained blocks to compare, as in MAE's figure 9: 0, half, 1, 2, 4, ... and all."""
    yield from ("0", "half")
    blocks = 1
    while blocks < depth:
        yield str(blocks)
        blocks *= 2
    yield "all"


def with_blocks(recipe: Transfer, trained_blocks: str) -> Transfer:
    """The recipe with other trained blocks."""
    return replace(recipe, task=replace(recipe.task, trained_blocks=trained_blocks))
