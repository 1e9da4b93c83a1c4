"""Load a fine-tuned module from its run folder, and predict with it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import (
    AnyAnnotations,
    ClassMaps,
    ObjectLabels,
    Objects,
    Unlabelled,
    is_dense,
)
from unmask.contracts import ImageSource
from unmask.data.in_order import Unreadable
from unmask.data.labelled import NAMED, with_names
from unmask.errors import listed
from unmask.runs.classifier import Classifier
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.model import Model, load
from unmask.runs.run import Run
from unmask.spec import kind_of
from unmask.tasks.task import Prediction
from unmask.training.hardware import Hardware


class Answer(NamedTuple):
    """The prediction for an image."""

    name: str
    truth: tuple[int, ...] | None
    """The true classes of the image; None if they are not known."""
    prediction: Prediction


class Predictor(NamedTuple):
    """A fine-tuned module with what it needs to predict."""

    classifier: Classifier
    model: Model
    """Its encoder; it reads image files as in training."""

    @property
    def tuned(self) -> Tuned:
        """The fine-tuned module."""
        return self.classifier.tuned

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """See `Classifier`."""
        return self.classifier.thresholds

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.classifier.names

    def answers(self, outputs: Tensor, truth: Any, names: list[str]) -> list[Answer]:
        """Turn outputs of the module into an answer for each image; `truth` is None if the classes are not known."""
        kind = self.tuned.job.annotations
        known = [None] * len(names) if truth is None else [_classes(one, kind) for one in truth]
        predictions = self.classifier.predictions(outputs)
        return [Answer(*each) for each in zip(names, known, predictions, strict=True)]


def load_predictor(path: Path | str, device: str = "cpu") -> Predictor:
    """The module of a fine-tuned run, from its newest complete checkpoint.

    Raises:
        RunError: if there is no such run, or no checkpoint yet.
    """
    Run.read(RunFolder(path), Finetune.command)
    model = load(path, device)
    assert model.classifier is not None
    return Predictor(model.classifier, model)


def predict_source(
    predictor: Predictor, source: ImageSource, unreadable: Unreadable
) -> Iterator[tuple[Tensor, Any, list[int]]]:
    """(outputs, annotations, positions) of every readable image of a source, with the channels of training."""
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


def confusion(answers: Sequence[Answer], classes: int) -> NDArray[np.int64]:
    """Confusion matrix: images of each true class (rows) by predicted class (columns); one class per image."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    actual = [answer.truth[0] for answer in answers if answer.truth]
    predicted = [answer.prediction.classes[0] for answer in answers if answer.truth]
    np.add.at(counts, (actual, predicted), 1)
    return counts


class Truth(NamedTuple):
    """What the labels of images say about the classes of a module."""

    source: ImageSource
    """The images, with the classes of the module if they have any of them."""
    scored: bool
    """Whether the module can be scored on some of the images."""
    note: str | None
    """What is not scored, and why."""


def truth_of(trained: AnyAnnotations, source: ImageSource) -> Truth:
    """Compare the labels of images with the classes that a module learned; labels of other classes count as unknown."""
    actual = source.annotations
    if isinstance(actual, Unlabelled):
        return Truth(source, False, None)
    if type(actual) is type(trained) and not is_dense(actual) and actual.names == trained.names:
        return Truth(source, True, None)
    if type(actual) is not type(trained):
        kinds = f"{kind_of(AnyAnnotations, actual)} and the run {kind_of(AnyAnnotations, trained)}"
        return Truth(source, False, f"not scored, because the images have {kinds}")
    if is_dense(trained):
        return _dense_truth(source, trained)
    known = set(actual.names) & set(trained.names)
    others = (
        f"{listed(sorted(set(actual.names) - known), NAMED)}; it has {listed(trained.names, NAMED)}"
    )
    if not known:
        return Truth(
            source,
            False,
            f"not scored, because the images' labels are not the classifier's classes: {others}",
        )
    images = with_names(source, trained)
    if images is None:
        return Truth(source, False, "not scored, because the classes have another order")
    unlabelled, unknown = (
        int((labels.reshape(len(source), -1) < 0).any(1).sum())
        for labels in (source.labels(), images.labels())
    )
    unknown -= unlabelled
    note = f"{unknown:,} images are not scored, because the classifier has no class {others}"
    return Truth(images, True, note if unknown else None)


def _dense_truth(source: ImageSource, trained: AnyAnnotations) -> Truth:
    """Class maps or objects of some or all of the module's classes, numbered as in training."""
    actual = source.annotations
    if unknown := sorted(set(actual.names) - set(trained.names)):
        lacking = f"{listed(unknown, NAMED)}; it has {listed(trained.names, NAMED)}"
        return Truth(source, False, f"not scored, because the run has no class {lacking}")
    images = source if actual.names == trained.names else with_names(source, trained)
    if images is None:
        return Truth(source, False, "not scored, because the classes have another order")
    has_boxes_alone = scored_kind(images, trained) != trained
    note = "masks are not scored, because the images have boxes alone" if has_boxes_alone else None
    return Truth(images, True, note)


def scored_kind(source: ImageSource, trained: AnyAnnotations) -> AnyAnnotations:
    """The annotations that a module is scored by: those of training, without masks where the images have none."""
    actual = source.annotations
    if isinstance(trained, ObjectLabels) and isinstance(actual, ObjectLabels):
        return replace(trained, masks=trained.masks and actual.masks)
    return trained
