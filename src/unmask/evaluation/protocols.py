"""The questions of an evaluation, and the encoders and baselines that are trained to answer them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from unmask.data import AnySource
from unmask.data.draws import check_amount
from unmask.data.few_labels import few
from unmask.data.labelled import Labelled
from unmask.errors import SettingsError
from unmask.evaluation.frozen import (
    FROZEN,
    PRETRAINED,
    PROBES,
    RANDOM,
    SCRATCH,
    Control,
    Row,
)
from unmask.evaluation.tuning import (
    TuningSetup,
    augmented,
    fitted,
    from_scratch,
    ladder,
    tune,
    with_blocks,
    words_of,
)
from unmask.recipes import Transfer
from unmask.runs.model import Model
from unmask.runs.weights import find_weights
from unmask.spec import within
from unmask.training.hardware import Hardware

Protocol = Literal["knn", "logistic", "linear", "attentive", "partial", "finetune", "ladder"]

RecipeFor = Callable[[int], Transfer]
"""A function from the number of training images to a recipe."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to evaluate for every encoder."""

    protocol: Protocol
    """The protocol."""

    labels: tuple[str, ...]
    """Amounts of training labels per class."""

    seeds: int
    """Number of draws of each amount."""

    seed: int
    """Seed of the first draw."""

    control: Control
    """Baselines to score in addition to the encoder."""

    vectors: Literal["default", "plain"] = "default"
    """Whether k-NN also scores whitened vectors."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "seeds")
        for amount in self.labels:
            check_amount(amount)
        if len(set(self.labels)) < len(self.labels):
            raise SettingsError(
                f"--labels has an amount twice: {','.join(self.labels)}; remove one"
            )

    def draws(self, amount: str) -> list[int]:
        """The seeds of an amount of labels; one if nothing is random."""
        fixed = amount == "all" and self.protocol in ("knn", "logistic")
        return [self.seed] if fixed else self.trainings

    @property
    def trainings(self) -> list[int]:
        """The seeds of trainings."""
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def whitens(self) -> bool:
        """Whether whitened vectors are scored too."""
        return self.protocol == "knn" and self.vectors == "default"

    @property
    def beside_frozen(self) -> bool:
        """Whether random weights and raw pixels are scored beside frozen features."""
        return self.control != "none"

    @property
    def random(self) -> bool:
        """Whether a random encoder is trained in the same way."""
        return self.control in ("random", "both")

    @property
    def scratch(self) -> bool:
        """Whether training from scratch is scored."""
        return self.control in ("scratch", "both")


class Subject(NamedTuple):
    """An encoder, and the labelled images to evaluate it on."""

    path: str
    """Path of its run or its weights."""
    model: Model
    data: AnySource
    labelled: Labelled


class TrainedArm(NamedTuple):
    """A training, or several over draws, that has not started."""

    name: str
    protocol: Protocol
    feature: str
    labels: str
    draws: list[int]
    setup: TuningSetup
    images: int
    setting: str

    @property
    def words(self) -> str:
        """The training in words."""
        count = f"{len(self.draws)} draws" if len(self.draws) > 1 else "1 draw"
        return f"{self.name}, {self.setting}, labels: {self.labels} ({count}) ..."

    def row(self) -> Row:
        """Train and score on the test images."""
        started = time.perf_counter()
        tuned = (tune(self.setup, self.labels, seed) for seed in self.draws)
        scored = [one.scored_on(one.labelled.test) for one in tuned]
        seconds = time.perf_counter() - started
        images_seen = len(self.draws) * self.images * self.setup.recipe(self.images).epochs
        return Row(
            arm=self.name,
            protocol=self.protocol,
            feature=self.feature,
            labels=self.labels,
            scores=[score for score, _ in scored],
            setting=self.setting,
            seconds=seconds,
            images_per_second=images_seen / seconds,
            source="trained",
            right=tuple(right for _, right in scored if right is not None),
        )


def recipes_of(question: Question, subject: Subject, recipe: Transfer) -> dict[str, RecipeFor]:
    """The recipes that a protocol trains, by trained blocks; empty for frozen features."""
    depth = subject.model.spec.encoder.depth
    blocks = {"partial": ["1"], "finetune": ["all"], "ladder": list(ladder(depth))}
    return {
        trained: partial(fitted, with_blocks(recipe, trained))
        for trained in blocks.get(question.protocol, [])
    }


def augmented_recipes(
    question: Question, subject: Subject, epochs: float | None
) -> dict[str, RecipeFor]:
    """The probe of a protocol, trained on new crops and flips at every step instead of cached features.

    Raises:
        SettingsError: if the protocol does not train a head on frozen tokens.
    """
    if question.protocol not in PROBES:
        raise SettingsError(
            f"--augment is only for linear and attentive, which train a head; {question.protocol} "
            + ("always augments" if question.protocol not in FROZEN else "uses fixed features")
            + "; remove --augment"
        )
    probe, feature = PROBES[question.protocol]
    annotations = subject.labelled.train.annotations
    return {feature: partial(augmented, probe, subject.model.spec, annotations, epochs)}


def trained_arms(
    question: Question,
    subject: Subject,
    hardware: Hardware,
    recipes: dict[str, RecipeFor],
    recipe: Transfer,
) -> Iterator[TrainedArm]:
    """All trainings, in the order of the table; `recipe` is for training from scratch."""
    weights = find_weights(subject.path).weights if recipes else None
    arms = [(PRETRAINED, feature, weights, recipe_for) for feature, recipe_for in recipes.items()]
    if question.random:
        arms += [(RANDOM, feature, None, recipe_for) for feature, recipe_for in recipes.items()]
    if question.scratch:
        arms.append((SCRATCH, "all", None, partial(fitted, from_scratch(recipe))))
    for name, feature, init, recipe_for in arms:
        setup = TuningSetup(
            recipe=recipe_for,
            weights=init,
            data=subject.data,
            labelled=subject.labelled,
            statistics=subject.model.spec.statistics,
            hardware=hardware,
        )
        for amount in question.labels:
            draws = question.draws(amount) if name != SCRATCH else question.trainings
            images = len(few(subject.labelled, amount, draws[0]).train)
            yield TrainedArm(
                name=name,
                protocol=question.protocol,
                feature=feature,
                labels=amount,
                draws=draws,
                setup=setup,
                images=images,
                setting=words_of(recipe_for(images), images),
            )
