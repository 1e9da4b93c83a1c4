"""A fine-tuned module from its run folder, and what it says of images."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import AnyAnnotations, ClassMaps, Objects, Unlabelled
from unmask.contracts import ImageSource
from unmask.data.in_order import Unreadable
from unmask.errors import DataError, SettingsError
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.model import Model, load
from unmask.runs.run import Run
from unmask.tasks.task import Prediction
from unmask.training.hardware import Hardware


class Answer(NamedTuple):
    """What a fine-tuned module says of an image."""

    name: str
    truth: tuple[int, ...] | None
    """The classes that the image belongs to; None if that is not known."""
    prediction: Prediction


class Predictor(NamedTuple):
    """A fine-tuned module and what is needed to use it."""

    tuned: Tuned
    channels: int
    thresholds: tuple[float, ...] | None
    """From which probability an image belongs to a class, where a task chooses that."""
    model: Model
    """Its encoder, which knows how to read a file."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self.tuned.job.annotations.names

    def answers(self, outputs: Tensor, truth: Any, names: list[str]) -> list[Answer]:
        """What outputs of the module say of each of these images; `truth` is None where nothing is known."""
        predictions = self.tuned.job.recipe.task.predictions(outputs, self.thresholds)
        kind = self.tuned.job.annotations
        known = [None] * len(names) if truth is None else [_classes(one, kind) for one in truth]
        return [Answer(*each) for each in zip(names, known, predictions, strict=True)]


def load_predictor(path: Path | str, device: str = "cpu") -> Predictor:
    """The module of a run of fine-tuning, from its newest whole checkpoint.

    Raises:
        RunError: if there is no such run, or no checkpoint yet.
    """
    folder = RunFolder(path)
    run = Run.read(folder, Finetune.command)
    assert isinstance(run.job, Finetune)
    checkpoint, _ = folder.newest_whole()
    module = run.build()
    module.load_state_dict(checkpoint.read("model"))
    tuned = Tuned(module.to(device).eval(), run.job, run.statistics)
    return Predictor(tuned, run.channels, _thresholds(folder), load(path, device))


def _thresholds(folder: RunFolder) -> tuple[float, ...] | None:
    """Those that were chosen at the end of training; None before that, or where none are chosen."""
    try:
        thresholds = json.loads(folder.results.read_text()).get("thresholds")
    except (OSError, ValueError, AttributeError):
        return None
    return None if thresholds is None else tuple(float(value) for value in thresholds)


def predict_source(
    predictor: Predictor, source: ImageSource, unreadable: Unreadable
) -> Iterator[tuple[Tensor, Any, list[int]]]:
    """(outputs, annotations, positions) of every readable image of a source.

    Raises:
        DataError: if the images have other channels than it was trained on.
    """
    if source.channels != predictor.channels:
        raise DataError(
            f"{source.where} has {source.channels} channels, and this classifier was trained on "
            f"{predictor.channels}"
        )
    hardware = Hardware(
        device=str(predictor.model.device),
        precision="float32",
        workers=0,
        threads=torch.get_num_threads(),
        micro_batch=1,
    )
    yield from predictor.tuned.outputs(source, hardware, unreadable)


def _classes(label: Tensor | Objects, kind: AnyAnnotations) -> tuple[int, ...] | None:
    """The classes of an image, or those of its pixels or objects; None if nothing is known."""
    if isinstance(label, Objects):
        return tuple(label.classes.unique().tolist())
    if isinstance(kind, ClassMaps):
        return tuple(label[label != kind.ignored].unique().tolist())
    if bool((label < 0).any()):
        return None
    return (int(label),) if label.ndim == 0 else tuple(label.nonzero().flatten().tolist())


@torch.inference_mode()
def predict_files(predictor: Predictor, files: Sequence[str]) -> Iterator[Answer]:
    """What the module says of image files.

    Raises:
        DataError: naming a file that cannot be read.
    """
    recipe, model = predictor.tuned.job.recipe, predictor.model
    for file in files:
        (view,) = recipe.test_views(model.read(file), recipe.image_size)
        outputs = predictor.tuned.predict(view[None].to(model.device)).float().cpu()
        yield predictor.answers(outputs, None, [file])[0]


def confusion(answers: Sequence[Answer], classes: int) -> NDArray[np.int64]:
    """How many images of each class (rows) are taken for each class (columns); each image has one class."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    actual = [answer.truth[0] for answer in answers if answer.truth]
    taken_for = [answer.prediction.classes[0] for answer in answers if answer.truth]
    np.add.at(counts, (actual, taken_for), 1)
    return counts


def is_scored(predictor: Predictor, source: ImageSource) -> bool:
    """Whether images come with labels of the module's classes, so that it can be scored on them.

    Raises:
        SettingsError: if their classes are others than those it was trained on.
    """
    wanted, there = predictor.tuned.job.annotations, source.annotations
    if isinstance(there, Unlabelled):
        return False
    if there.names != wanted.names:
        odd = sorted(set(there.names) ^ set(wanted.names))
        raise SettingsError(
            f"{source.where} has {len(there.names)} classes and the classifier has {len(wanted.names)}; "
            f"only one of the two has {', '.join(odd[:5])}. Give images of the same class folders, or a "
            "single image"
        )
    return type(there) is type(wanted)
