"""The arms of an evaluation: an encoder, and what it is compared with; each gives a row of scores."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, cast

import torch

from unmask.annotations import AnyAnnotations
from unmask.data import AnySource
from unmask.data.labelled import Labelled, draw_few
from unmask.errors import SettingsError
from unmask.evaluation.feature_cache import FeatureStore, features_folder
from unmask.evaluation.features import Features, Tokens
from unmask.evaluation.frozen import (
    FROZEN,
    PRETRAINED,
    RANDOM,
    SCRATCH,
    Control,
    Frozen,
    Row,
    evaluate,
)
from unmask.evaluation.probes import ATTENTIVE, LINEAR
from unmask.evaluation.tuning import (
    Asked,
    augmented,
    few,
    fitted,
    from_scratch,
    ladder,
    tuned_score,
    with_blocks,
    words_of,
)
from unmask.recipes import Transfer
from unmask.runs.model import Model
from unmask.runs.weights import find_weights
from unmask.tasks.task import Score
from unmask.training.hardware import Hardware

Protocol = Literal["knn", "logistic", "linear", "attentive", "partial", "finetune", "ladder"]

_PROBES = {"linear": (LINEAR, "cls"), "attentive": (ATTENTIVE, "patches")}

RecipeFor = Callable[[int], Transfer]
"""The recipe that fits so many images."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every encoder."""

    protocol: Protocol
    """How an encoder is judged."""

    labels: tuple[str, ...]
    """Amounts of labels of each class to learn from."""

    seeds: int
    """Draws of each."""

    seed: int
    """The first of the draws."""

    control: Control
    """What is scored beside the encoder."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise SettingsError(f"--seeds must be at least 1, got {self.seeds}")
        if len(set(self.labels)) < len(self.labels):
            raise SettingsError(f"--labels names an amount twice: {','.join(self.labels)}")

    def draws(self, amount: str) -> list[int]:
        """The seeds of an amount of labels; one where nothing is drawn."""
        fixed = amount == "all" and self.protocol in ("knn", "logistic")
        return [self.seed] if fixed else self.trainings

    @property
    def trainings(self) -> list[int]:
        """The seeds of what is trained."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def random(self) -> bool:
        """Whether a random encoder is scored."""
        return self.control in ("random", "both")

    @property
    def scratch(self) -> bool:
        """Whether training from scratch is scored."""
        return self.control in ("scratch", "both")


class Subject(NamedTuple):
    """An encoder, and the labelled images that it is judged on."""

    path: str
    """Of its run, or its weights."""
    model: Model
    data: AnySource
    labelled: Labelled


class FrozenArm(NamedTuple):
    """The features of an encoder."""

    name: str
    train: Features | Tokens
    test: Features | Tokens
    images_per_second: float
    """When they were computed."""
    source: Literal["computed", "kept"]
    notes: list[str]
    device: torch.device
    """Where heads are trained on them."""


def frozen_arms(question: Question, subject: Subject) -> Iterator[FrozenArm]:
    """Features of the encoder and, if asked for, of the random one; computed once, and then kept on disk."""
    model = subject.model
    encoders = {PRETRAINED: model.encoder}
    if question.random:
        untrained = model.spec.build_encoder(model.run.seed if model.run else 0)
        encoders[RANDOM] = untrained.to(model.device).eval()
    folder = features_folder(subject.path)
    for name, encoder in encoders.items():
        store = FeatureStore(folder, encoder, model.spec, model.device)
        kind = store.tokens if question.protocol == "attentive" else store.features
        train, test = kind(subject.labelled.train), kind(subject.labelled.test)
        images = len(train.found.labels) + len(test.found.labels)
        yield FrozenArm(
            name,
            train.found,
            test.found,
            images / max(train.seconds + test.seconds, 1e-9),
            "kept" if train.from_disk and test.from_disk else "computed",
            [*train.notes, *test.notes],
            model.device,
        )


def frozen_rows(arm: FrozenArm, question: Question, annotations: AnyAnnotations) -> Iterator[Row]:
    """What the features score, for every amount of labels."""
    assert question.protocol in FROZEN
    protocol = cast(Frozen, question.protocol)
    for amount in question.labels:
        started = time.perf_counter()
        scores: dict[str, list[Score]] = {}
        settings: dict[str, str] = {}
        for seed in question.draws(amount):
            labels = arm.train.labels.long().numpy()
            chosen = torch.from_numpy(draw_few(labels, annotations.names, amount, seed))
            few_images = arm.train.rows(chosen)
            for one in evaluate(
                few_images, arm.test, protocol, annotations, seed=seed, device=arm.device
            ):
                scores.setdefault(one.feature, []).append(one.score)
                settings[one.feature] = one.setting
        seconds = time.perf_counter() - started
        for feature, of_draws in scores.items():
            yield Row(
                arm.name,
                protocol,
                feature,
                amount,
                of_draws,
                settings[feature],
                seconds,
                arm.images_per_second,
                arm.source,
            )


class TrainedArm(NamedTuple):
    """A training, or several over draws, that has not begun."""

    name: str
    protocol: Protocol
    feature: str
    labels: str
    draws: list[int]
    asked: Asked
    images: int
    setting: str

    @property
    def words(self) -> str:
        """What will be done."""
        count = f"{len(self.draws)} draws" if len(self.draws) > 1 else "1 draw"
        return f"{self.name}, {self.setting}, labels: {self.labels} ({count}) ..."

    def row(self) -> Row:
        """Train, and score on the test images."""
        started = time.perf_counter()
        scores = [tuned_score(self.asked, self.labels, seed) for seed in self.draws]
        seconds = time.perf_counter() - started
        shown = len(self.draws) * self.images * self.asked.recipe(self.images).epochs
        return Row(
            self.name,
            self.protocol,
            self.feature,
            self.labels,
            scores,
            self.setting,
            seconds,
            shown / seconds,
            "trained",
        )


def recipes_of(question: Question, subject: Subject, recipe: Transfer) -> dict[str, RecipeFor]:
    """What a protocol trains, by how many blocks learn: none for frozen features."""
    depth = subject.model.spec.encoder.depth
    rungs = {"partial": ["1"], "finetune": ["all"], "ladder": list(ladder(depth))}
    found = rungs.get(question.protocol, [])
    return {rung: partial(fitted, with_blocks(recipe, rung)) for rung in found}


def augmented_recipes(
    question: Question, subject: Subject, epochs: float | None
) -> dict[str, RecipeFor]:
    """The probe of a protocol, on crops and flips that pass the frozen encoder at every step.

    Raises:
        SettingsError: if the protocol trains no head on frozen tokens.
    """
    if question.protocol not in _PROBES:
        raise SettingsError(
            f"--augment is for linear and attentive, which train a head; {question.protocol} "
            + ("augments anyway" if question.protocol not in FROZEN else "looks at fixed features")
        )
    probe, feature = _PROBES[question.protocol]
    annotations = subject.labelled.train.annotations
    return {feature: partial(augmented, probe, subject.model.spec, annotations, epochs)}


def trained_arms(
    question: Question,
    subject: Subject,
    hardware: Hardware,
    recipes: dict[str, RecipeFor],
    recipe: Transfer,
) -> Iterator[TrainedArm]:
    """All that is to be trained, in the order of the table; `recipe` is that of training from scratch."""
    weights = find_weights(subject.path).weights if recipes else None
    arms = [(PRETRAINED, feature, weights, found) for feature, found in recipes.items()]
    if question.random:
        arms += [(RANDOM, feature, None, found) for feature, found in recipes.items()]
    if question.scratch:
        arms.append((SCRATCH, "all", None, partial(fitted, from_scratch(recipe))))
    for name, feature, given, found in arms:
        asked = Asked(
            found, given, subject.data, subject.labelled, subject.model.spec.statistics, hardware
        )
        for amount in question.labels:
            draws = question.draws(amount) if name != SCRATCH else question.trainings
            images = len(few(subject.labelled, amount, draws[0]).train)
            setting = words_of(found(images), images)
            yield TrainedArm(
                name, question.protocol, feature, amount, draws, asked, images, setting
            )
