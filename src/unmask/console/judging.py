"""Scores encoders on labelled images: all are checked before anything is computed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from unmask.annotations import ClassLabels, MultiLabels
from unmask.console.bars import progress_on
from unmask.console.judged import Judged
from unmask.console.labels import labelled_source
from unmask.console.output import loaded, matched, notes, other_recipes, say_left_out
from unmask.console.screen import say_waiting
from unmask.console.typed import as_typed
from unmask.data import AnySource
from unmask.data.draws import draw_few
from unmask.data.in_order import Unreadable
from unmask.data.labelled import open_labelled, with_channels
from unmask.errors import SettingsError
from unmask.evaluation.arms import frozen_arms, frozen_rows
from unmask.evaluation.frozen import FROZEN, PRETRAINED, Row
from unmask.evaluation.protocols import (
    Question,
    Subject,
    augmented_recipes,
    recipes_of,
    trained_arms,
)
from unmask.evaluation.vectors import Fitted
from unmask.recipes import Transfer, choose_transfer, find_transfer
from unmask.runs.finetune import for_annotations
from unmask.runs.model import Model
from unmask.runs.weights import shape_of
from unmask.spec import within
from unmask.training.hardware import Hardware, best_precision, best_workers

_MICRO_BATCH = 256


class EvaluationRequest(NamedTuple):
    """What to evaluate encoders on, and how."""

    question: Question
    data: str | AnySource
    """Labelled images: their place, or a source."""
    recipe: str | Transfer | None = None
    """Of trained protocols, by name or as it is; chosen from the encoder if None."""
    epochs: float | None = None
    """Of trained protocols; the recipe's if None."""
    augment: bool = False
    """Whether linear and attentive probes see new crops and flips at every step."""
    data_kind: str | None = None
    """The format of the images; detected if None."""
    labels_file: str | None = None
    """A file with the classes of each image, in place of class folders."""
    device: str = "auto"
    """Where to compute."""

    @property
    def data_name(self) -> str:
        """The data as a user writes them."""
        return self.data if isinstance(self.data, str) else as_typed(self.data)


def all_judged(paths: list[str], request: EvaluationRequest) -> list[Judged]:
    """The scores of each encoder; all encoders and images are checked before anything is computed."""
    _check(request)
    with progress_on(notes):
        models = {path: loaded(path, request.device) for path in paths}
        subjects = [subject_of(request, path, model) for path, model in models.items()]
        return [_judge(request, subject) for subject in subjects]


def _check(request: EvaluationRequest) -> None:
    """Refuse settings that would do nothing."""
    protocol, epochs = request.question.protocol, request.epochs
    trains = protocol not in FROZEN or request.question.scratch
    if request.recipe and not trains:
        raise SettingsError(
            "--recipe is for partial, finetune, ladder and --control scratch; "
            f"{protocol} has its own schedule"
        )
    if epochs is not None and not (trains or request.augment):
        raise SettingsError(
            "--epochs is for partial, finetune, ladder, --augment and --control scratch; "
            f"{protocol} has its own schedule"
        )
    within(request, "(0, inf)", "epochs")


def subject_of(request: EvaluationRequest, path: str, model: Model) -> Subject:
    """The encoder and its images, checked before any work."""
    question = request.question
    notes.print(f"reading   {request.data_name} ...")
    source = source_for(request, model)
    labelled = open_labelled(source, question.seed, (ClassLabels, MultiLabels))
    say_left_out(labelled.train, notes)
    channels, trained_on = model.spec.channels, f"{path} was trained on"
    labelled = labelled._replace(
        test=with_channels(labelled.test, channels, trained_on),
        train=matched(labelled.train, channels, trained_on),
    )
    labels = labelled.train.labels()
    for amount in question.labels:
        draw_few(labels, labelled.train.annotations.names, amount, question.seed)
    subject = Subject(path, model, source, labelled)
    if request.augment:
        augmented_recipes(question, subject, request.epochs)
    return subject


def source_for(request: EvaluationRequest, model: Model) -> AnySource:
    """The images, with the bands that the encoder was trained on."""
    return labelled_source(request.data, request.data_kind, request.labels_file, model.bands, notes)


def _judge(request: EvaluationRequest, subject: Subject) -> Judged:
    """All scores of an encoder, control included."""
    say_waiting()
    question, labelled = request.question, subject.labelled
    rows: list[Row] = []
    unreadable: Unreadable = []
    fitted: Fitted | None = None
    counts = (len(labelled.train), len(labelled.test))
    if question.protocol in FROZEN and not request.augment:
        for arm in frozen_arms(question, subject):
            for note in arm.notes:
                notes.note(note)
            rows += frozen_rows(arm, question, labelled.train.annotations)
            train, test, _ = arm.pairs[0]
            unreadable = [*train.unreadable, *test.unreadable]
            counts = (len(train.labels), len(test.labels))
            fitted = arm.fitted if arm.name == PRETRAINED else fitted
    rows += _trained(request, subject)
    return Judged(question, subject, request.data_name, rows, counts, unreadable, fitted)


def _trained(request: EvaluationRequest, subject: Subject) -> Iterator[Row]:
    """The scores of everything that is trained."""
    question = request.question
    if question.protocol in FROZEN and not (request.augment or question.scratch):
        return
    recipe = for_annotations(_recipe(request, subject.model), subject.labelled.train.annotations)
    recipes = (
        augmented_recipes(question, subject, request.epochs)
        if request.augment
        else recipes_of(question, subject, recipe)
    )
    device = subject.model.device
    hardware = Hardware(
        device=str(device),
        precision=best_precision(device),
        workers=best_workers(device, subject.labelled.train.in_memory),
        threads=torch.get_num_threads(),
        micro_batch=_MICRO_BATCH,
    )
    for arm in trained_arms(question, subject, hardware, recipes, recipe):
        notes.print(arm.words)
        yield arm.row()


def _recipe(request: EvaluationRequest, model: Model) -> Transfer:
    """What an encoder is fine-tuned with, or trained from scratch."""
    encoder = model.spec.encoder
    if isinstance(request.recipe, Transfer):
        name, recipe = "given", request.recipe
    else:
        name = request.recipe or choose_transfer(encoder)
        recipe = find_transfer(name)
    if request.recipe is None:
        recipe = replace(recipe, encoder=encoder, image_size=model.spec.image_size)
        if not request.augment:
            notes.print(f"recipe    {name}; {other_recipes()}")
    elif not recipe.encoder.fits(encoder):
        raise SettingsError(
            f"the encoder has {shape_of(encoder)}, and recipe {name} is for {shape_of(recipe.encoder)}; "
            "leave out --recipe to take one that fits"
        )
    epochs = request.epochs
    return recipe if epochs is None else replace(recipe, epochs=epochs)
