"""Parts of `gpu.py` that train: pretraining for a time, k-NN of its features, and fine-tuning for a time beside scratch."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import NamedTuple

import bare
import torch
from gpu_bed import Bed
from gpu_images import images_in
from torch import nn

from unmask.clock import entered
from unmask.data import Folder
from unmask.data.labelled import Labelled
from unmask.data.statistics import measure
from unmask.encoders.vit import VisionTransformer, ViT
from unmask.evaluation.features import features
from unmask.evaluation.tuning import from_scratch
from unmask.formats.model import Weights, split
from unmask.recipes import TRANSFERS, Recipe, Transfer, choose_transfer
from unmask.recipes.by_time import recipe_for, with_more_steps
from unmask.recipes.mae import MAE_TI4
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.plan import seconds_of_step, trial
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import AnyJob, Run, new_run
from unmask.runs.training import training
from unmask.tasks import task_for
from unmask.tasks.neighbors import knn_votes
from unmask.training.hardware import Hardware, best_precision, best_workers, cores

NEEDED = ("cattrs", "safetensors", "platformdirs")
"""Packages without which a run cannot be written; others may be stand-ins."""

NEIGHBOURS = ("k-NN, class token, %", "k-NN, mean of patches, %")
FINETUNED = "fine-tuned, %"


@dataclass(frozen=True)
class Course:
    """How long, and how large."""

    encoder: ViT = MAE_TI4.encoder
    pretraining_seconds: float = 75.0
    finetuning_seconds: float = 40.0
    most: int | None = None
    """Images of each split; all if None."""


TINY_COURSE = Course(ViT(patch_size=8, embed_dim=32, depth=1, num_heads=2), 1.0, 1.0, 48)


class Trained(NamedTuple):
    """A run that is over."""

    run: Run
    module: nn.Module


def pretrained(which: str, course: Course, data: Path) -> Callable[[Bed], None]:
    """A part: pretrain with the "exact" recipe or the "winner" by time, then k-NN and fine-tuning."""

    def part(bed: Bed) -> None:
        bare.need(*NEEDED)
        labelled = images_in(data, course.most)
        recipe = winner(course, labelled) if which == "winner" else exact(course, labelled, bed)
        job = Pretrain(recipe=recipe)
        trained = train("pretraining", job, labelled, course.pretraining_seconds, bed)
        state = {name: tensor.cpu() for name, tensor in trained.module.state_dict().items()}
        weights = Weights(trained.run.model, *split(state))
        neighbours(weights.build_encoder(), trained.run, labelled, bed)
        finetune(course, labelled, weights, bed)

    return part


def scratch(course: Course, data: Path) -> Callable[[Bed], None]:
    """A part: k-NN of random weights, and fine-tuning from them."""

    def part(bed: Bed) -> None:
        bare.need(*NEEDED)
        labelled = images_in(data, course.most)
        run = planned(Pretrain(recipe=winner(course, labelled)), labelled, bed)
        neighbours(run.model.build_encoder(run.seed), run, labelled, bed)
        finetune(course, labelled, None, bed)

    return part


def winner(course: Course, labelled: Labelled) -> Recipe:
    """What `pretrain --minutes` takes for this encoder."""
    return recipe_for(course.encoder, labelled.train.typical_size(), len(labelled.train))


def exact(course: Course, labelled: Labelled, bed: Bed) -> Recipe:
    """The recipe without approximations, with the batch that suits the epochs of this time."""
    size, images = labelled.train.typical_size(), len(labelled.train)
    recipe = replace(MAE_TI4, encoder=course.encoder, image_size=size)
    run = planned(
        Pretrain(recipe=with_more_steps(replace(recipe, epochs=1), images)), labelled, bed
    )
    epochs = (
        course.pretraining_seconds / step_seconds(run, labelled) * run.recipe.batch_size / images
    )
    return with_more_steps(lasting(recipe, epochs), images)


def lasting(recipe: Recipe | Transfer, epochs: float) -> Recipe | Transfer:
    """The recipe with so many epochs, and its warm-up in proportion."""
    share = recipe.schedule.warmup_epochs / recipe.epochs
    return replace(
        recipe, epochs=epochs, schedule=replace(recipe.schedule, warmup_epochs=share * epochs)
    )


def planned(job: AnyJob, labelled: Labelled, bed: Bed) -> Run:
    """A run of the job on all images, as it would start here."""
    random_crops = isinstance(job, Pretrain)  # those of images in memory are cut where they live
    hardware = Hardware(
        device=bed.device.type,
        precision=best_precision(bed.device),
        workers=best_workers(bed.device, in_memory=random_crops or bed.device.type == "cpu"),
        threads=threads_for(bed),
        micro_batch=job.recipe.batch_size,
    )
    return new_run(
        "gpu study", job, Folder(path=labelled.train.where), labelled.train, measure(labelled.train), hardware,
        save_every_minutes=1e6,
    )  # fmt: skip


def threads_for(bed: Bed) -> int:
    """All cores beside a GPU; one on a CPU, where the program is only tried out, perhaps beside other work."""
    return cores() if bed.device.type == "cuda" else 1


def step_seconds(run: Run, labelled: Labelled) -> float:
    """Measured seconds of a step."""
    cost = trial(run.build(), run.recipe, labelled.train, run.hardware)
    return seconds_of_step(run, labelled.train, cost)


def train(
    what: str,
    job: AnyJob,
    labelled: Labelled,
    seconds: float,
    bed: Bed,
    weights: Weights | None = None,
) -> Trained:
    """Train for so many seconds, compiling included; says how far it came."""
    run = planned(job, labelled, bed)
    steps = max(20, seconds / step_seconds(run, labelled))
    recipe = lasting(run.recipe, steps * run.recipe.batch_size / run.images)
    # a run with a time counts from when the command was entered
    minutes = (time.monotonic() - entered() + seconds) / 60
    run = replace(run, job=replace(job, recipe=recipe), minutes=minutes)
    module, losses, step = run.build(weights), list[float](), 0
    torch.compiler.reset()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(Path(root) / "run")
        folder.create(run)
        for progress in training(run, folder, labelled.train, module, Event()):
            step = progress.step
            losses += [line["loss"] for line in progress.lines if "loss" in line]
    took, shown = time.perf_counter() - began, run.images_seen(step)
    bed.say(f"{what}, seconds", round(took, 1))
    bed.say(f"{what}, steps", f"{step:,} of {run.recipe.batch_size}")
    bed.say(f"{what}, epochs", round(shown / run.images, 2))
    bed.say(f"{what}, images/s", round(shown / took))
    bed.say(f"{what}, loss of the last lines", round(sum(losses[-50:]) / len(losses[-50:]), 4))
    return Trained(run, module)


def neighbours(encoder: VisionTransformer, run: Run, labelled: Labelled, bed: Bed) -> None:
    """Accuracy of the 20 nearest neighbours, by both pooled features."""
    encoder.to(bed.device).eval()
    train, test = (
        features(
            encoder, part, run.recipe.image_size, run.statistics, bed.device, run.hardware.workers
        )
        for part in (labelled.train, labelled.test)
    )
    classes = len(labelled.train.annotations.names)
    for words, field in zip(NEIGHBOURS, ("cls", "mean"), strict=True):
        votes = knn_votes(getattr(train, field), train.labels, getattr(test, field), classes)
        right = float((votes.argmax(1) == test.labels).double().mean())
        bed.say(words, round(100 * right, 2))


def finetune(course: Course, labelled: Labelled, weights: Weights | None, bed: Bed) -> None:
    """Train all blocks with labels for the time, and score on the test images."""
    kind = labelled.train.annotations
    recipe = TRANSFERS[choose_transfer(course.encoder)].recipe
    recipe = replace(
        recipe,
        encoder=course.encoder,
        task=task_for(recipe.task, kind),
        image_size=labelled.train.typical_size(),
        batch_size=min(recipe.batch_size, len(labelled.train)),
    )
    if weights is None:
        recipe = from_scratch(recipe)
    job = Finetune(recipe=recipe, annotations=kind, init=None if weights is None else "this study")
    trained = train("fine-tuning", job, labelled, course.finetuning_seconds, bed, weights)
    tuned = Tuned(trained.module, trained.run.job, trained.run.statistics)
    score = tuned.score(labelled.test, trained.run.hardware).score
    bed.say(FINETUNED, round(100 * score.value, 2))
