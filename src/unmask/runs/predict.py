"""A fine-tuned classifier from its run folder, and what it says of images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.contracts import ImageSource
from unmask.data.in_order import Unreadable
from unmask.data.views import AnyViews
from unmask.errors import DataError, SettingsError
from unmask.runs.finetune import scored
from unmask.runs.folder import RunFolder
from unmask.runs.model import Model, load
from unmask.runs.transfer import TransferRun
from unmask.runs.weights import newest_whole
from unmask.tasks.classify import Classifier
from unmask.training.hardware import Hardware


class Guess(NamedTuple):
    """What a classifier says of an image."""

    name: str
    label: int
    """The true class; -1 if unknown."""
    classes: list[int]
    """The likeliest first."""
    probabilities: list[float]


class Trained(NamedTuple):
    """A fine-tuned classifier and what is needed to use it."""

    run: TransferRun
    classifier: Classifier
    model: Model
    """Its encoder, which knows how to read a file."""


def load_classifier(path: Path | str, device: str = "cpu") -> Trained:
    """The classifier of a run of fine-tuning, from its newest whole checkpoint.

    Raises:
        RunError: if there is no such run, or no checkpoint yet.
    """
    folder = RunFolder(path)
    run = folder.read_transfer()
    found, _ = newest_whole(folder)
    classifier = run.build()
    classifier.load_state_dict(found.read("model"))
    return Trained(run, classifier.to(device).eval(), load(path, device))


def predict(
    trained: Trained, source: ImageSource, top: int, unreadable: Unreadable
) -> Iterator[Guess]:
    """The `top` likeliest classes of every readable image of a source.

    Raises:
        DataError: if the images have other channels than the classifier was trained on.
    """
    run = trained.run
    if source.channels != run.channels:
        raise DataError(
            f"{source.where} has {source.channels} channels, and this classifier was trained on "
            f"{run.channels}"
        )
    device = str(trained.model.device)
    hardware = Hardware(
        device=device,
        precision="float32",
        workers=0,
        threads=torch.get_num_threads(),
        micro_batch=1,
    )
    for scores, labels, positions in scored(trained.classifier, source, run, hardware, unreadable):
        best = scores.softmax(1).topk(min(top, scores.shape[1]))
        rows = zip(
            best.values.tolist(), best.indices.tolist(), labels.tolist(), positions, strict=True
        )
        for probabilities, classes, label, position in rows:
            yield Guess(source.name(position), label, classes, probabilities)


@torch.inference_mode()
def predict_files(trained: Trained, files: Sequence[str], top: int) -> Iterator[Guess]:
    """The `top` likeliest classes of image files.

    Raises:
        DataError: naming a file that cannot be read.
    """
    recipe = trained.run.recipe
    views: AnyViews = recipe.test_views
    for file in files:
        (view,) = views(trained.model.read(file), recipe.image_size)
        scores = trained.classifier.logits(view[None].to(trained.model.device))[0].float().cpu()
        best = scores.softmax(0).topk(min(top, len(scores)))
        yield Guess(file, -1, best.indices.tolist(), best.values.tolist())


def confusion(guesses: Sequence[Guess], classes: int) -> NDArray[np.int64]:
    """How many images of each class (rows) are taken for each class (columns)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, ([g.label for g in guesses], [g.classes[0] for g in guesses]), 1)
    return counts


def same_classes(run: TransferRun, source: ImageSource) -> bool:
    """Whether images come with labels of the classifier's classes, so that it can be scored on them.

    Raises:
        SettingsError: if their classes are others than those it was trained on.
    """
    names = source.annotations.names
    if not names:
        return False
    if names != run.classes:
        odd = sorted(set(names) ^ set(run.classes))
        raise SettingsError(
            f"{source.where} has {len(names)} classes and the classifier has "
            f"{len(run.classes)}; only one of the two has {', '.join(odd[:5])}. Give images of the same class "
            "folders, or a single image"
        )
    return True
