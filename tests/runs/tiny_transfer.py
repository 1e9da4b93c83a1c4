"""Fine-tuning so small that a step takes milliseconds."""

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from runs import tiny

from unmask.contracts import Size
from unmask.data.kinds import find_source
from unmask.data.mixing import Mixing
from unmask.data.noise import Noise, PatchKeep
from unmask.data.statistics import IMAGENET
from unmask.data.views import AugmentedCrop, CenterCrop
from unmask.formats.model import Weights
from unmask.recipes.finetune import Transfer
from unmask.runs.finetune import Finetune, open_annotated
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run, new_run
from unmask.runs.saving import Saver
from unmask.runs.training import training
from unmask.tasks import Classify
from unmask.training.hardware import Hardware
from unmask.training.optimizers import LayerwiseAdamW
from unmask.training.schedules import WarmupCosine

TRANSFER = Transfer(
    encoder=tiny.RECIPE.encoder,
    task=Classify(label_smoothing=0.1, drop_path=0.2, weight_average=0.5),
    views=AugmentedCrop(smallest_share=0.5),
    test_views=CenterCrop(),
    mixing=Mixing(mixup=0.8, cutmix=1.0, erasing=0.25),
    noise=Noise(patch_keep=PatchKeep(first=0.5, last=1.0), pixel_noise=0.1),
    optimizer=LayerwiseAdamW(),
    schedule=WarmupCosine(base_lr=0.3, warmup_epochs=0.25),
    image_size=Size(8, 8),
    batch_size=4,
    epochs=1.5,
)


def make_transfer(
    data: Path | str, recipe: Transfer = TRANSFER, *, init: str | None = None, **hardware: Any
) -> Run:
    """A run on a folder of classes."""
    spec = find_source(str(data))
    settings = {"device": "cpu", "precision": "float32", "workers": 0, "threads": 1}
    settings |= {"micro_batch": recipe.batch_size, **hardware}
    train = open_annotated(spec, 0).train
    job = Finetune(recipe=recipe, annotations=train.annotations, init=init)
    run = new_run("tiny", job, spec, train, IMAGENET, Hardware(**settings))
    return replace(run, save_every_minutes=60.0)


def begin(
    root: Path, data: Path | str, recipe: Transfer = TRANSFER, weights: Weights | None = None
) -> RunFolder:
    """The folder of a run that has not taken a step; given weights are saved as step 0."""
    folder = RunFolder(root)
    run = make_transfer(data, recipe, init="weights" if weights else None)
    folder.create(run)
    if weights:
        classifier = run.build(weights)
        Saver(run, folder, classifier, recipe.optimizer.build(classifier)).save_first()
    return folder


def go_on(folder: RunFolder, *, stop: Event | None = None, **hardware: Any) -> list[int]:
    """Continue a run as the command does; the steps taken."""
    run = Run.read(folder, "finetune")
    run = replace(run, hardware=replace(run.hardware, **hardware))
    start, _ = folder.newest()
    source = open_annotated(run.data, run.seed).train
    with folder.lock():
        reports = training(run, folder, source, run.build(), stop or Event(), start)
        return [report.step for report in reports]


def one_step(folder: RunFolder, **hardware: Any) -> list[int]:
    """Take one step, save and stop, as after a signal."""
    stop = Event()
    stop.set()
    return go_on(folder, stop=stop, **hardware)
