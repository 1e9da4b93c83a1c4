"""What a study is: a base, its variations, what is measured of each, and what was published."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeVar, get_args

from unmask.contracts import Size
from unmask.errors import SettingsError, UnmaskError, did_you_mean
from unmask.masking import count_visible
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.traits import Hiding

Score = Literal["finetune", "linear", "attentive", "knn"]
"""Test accuracy by a protocol of `unmask evaluate`."""

SCORES: tuple[str, ...] = get_args(Score)

Published = Mapping[str, float]
"""Accuracy in per cent by protocol; or "hours" of training."""


Training = TypeVar("Training", Recipe, Transfer, Tokenizing)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one line of a study's table is: how to pretrain, and how to fine-tune afterwards."""

    recipe: Recipe
    """How to pretrain."""

    transfer: Transfer
    """How to fine-tune, where that is measured."""

    labels: str = "all"
    """Labels of each class to learn from: a number, a percentage, or all."""

    start: Literal["pretrained", "drawn"] = "pretrained"
    """What is scored: the pretrained encoder, or one whose weights are as drawn, trained from scratch with labels."""

    tokenizing: Tokenizing | None = None
    """How the tokenizer is trained, on the same images, whose codes the target asks for; None where it asks for none."""

    def check(self) -> None:
        """Refuse a masking that its grid of patches cannot have."""
        objective = self.recipe.objective
        if isinstance(objective, Hiding):
            count_visible(objective.masking, self.recipe.encoder_grid())

    def pretrained(self, **changes: object) -> "Trial":
        """Another recipe of pretraining."""
        return replace(self, recipe=replace(self.recipe, **changes))

    def objective(self, **changes: object) -> "Trial":
        """Another objective."""
        return self.pretrained(objective=replace(self.recipe.objective, **changes))

    def tuned(self, **changes: object) -> "Trial":
        """Another recipe of fine-tuning."""
        return replace(self, transfer=replace(self.transfer, **changes))

    def shortened(self, factor: float) -> "Trial":
        """All trainings for a share of their epochs, warm-up included."""
        return replace(
            self,
            recipe=_shorter(self.recipe, factor),
            transfer=_shorter(self.transfer, factor),
            tokenizing=None if self.tokenizing is None else _shorter(self.tokenizing, factor),
        )

    def at_size(self, size: Size) -> "Trial":
        """All trainings on images of another size."""
        sized = self.pretrained(image_size=size).tuned(image_size=size)
        if self.tokenizing is None:
            return sized
        return replace(sized, tokenizing=replace(self.tokenizing, image_size=size))


def _shorter(recipe: Training, factor: float) -> Training:
    schedule = recipe.schedule
    return replace(
        recipe,
        epochs=recipe.epochs * factor,
        schedule=replace(schedule, warmup_epochs=schedule.warmup_epochs * factor),
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the base of a study is, and on how many images."""

    base: Trial
    """What every study varies."""

    images: int | None
    """Images to learn from, drawn alike from every class; None for all."""

    about: str
    """Size and expected time, in words."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One line of a study's table."""

    name: str
    """As the table says it."""

    change: Callable[[Trial], Trial]
    """The base, changed; relative to the model, so that it exists at every size."""

    published: Published = field(default_factory=dict[str, float])
    """The paper's values; empty where it has none."""

    beside: str | None = None
    """The variation that it is compared with; None for the base of the study."""


class Sizes(NamedTuple):
    """Variations along one axis, a line for each way."""

    places: tuple[str, ...]
    """Names of the sizes, smallest first."""
    lines: Mapping[str, tuple[str, ...]]
    """The variations of a way, at each size."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question put to variations of one base."""

    title: str
    """What is varied."""

    source: str
    """The paper's table or figure."""

    base: str
    """The name of the variation that the others are compared with."""

    variations: tuple[Variation, ...]
    """In the order of the table."""

    scores: tuple[Score, ...] = ("finetune", "linear", "knn")
    """Protocols; none for a study of time alone."""

    timed: bool = True
    """Whether FLOPs, time and memory of a step are measured."""

    curve: bool = False
    """Whether the variations are points along one axis, drawn as a curve."""

    scale: Scale | None = None
    """The base, if it is not that of `--scale`."""

    sizes: Sizes | None = None
    """Where the variations are some ways, each at several sizes: which is which, for a picture of its own."""

    def __post_init__(self) -> None:
        names = [variation.name for variation in self.variations]
        if len(set(names)) < len(names):
            raise SettingsError(f"two variations of a study have one name: {', '.join(names)}")
        for base in (self.base, *(variation.beside for variation in self.variations)):
            if base is not None and base not in names:
                raise SettingsError(
                    f"the base {base!r} is none of the variations: {', '.join(names)}"
                )
        odd = [score for score in self.scores if score not in SCORES]
        if odd:
            raise SettingsError(f"scores are some of {', '.join(SCORES)}, got {odd[0]!r}")
        if not self.scores and not self.timed:
            raise SettingsError("a study measures scores or time, and this one neither")

    def trials(self, base: Trial) -> dict[str, Trial]:
        """Every variation of a base, by name.

        Raises:
            SettingsError: naming each variation that this base cannot have, and why.
        """
        found: dict[str, Trial] = {}
        refused: list[str] = []
        for variation in self.variations:
            try:
                found[variation.name] = trial = variation.change(base)
                trial.check()
            except UnmaskError as error:
                refused.append(f"{variation.name}: {error}")
        if refused:
            raise SettingsError(
                "nothing was run, for variations are impossible here:\n  " + "\n  ".join(refused)
            )
        return found

    def only(self, names: Sequence[str]) -> "Study":
        """The study of some variations and of what they are compared with.

        Raises:
            SettingsError: naming those that there are.
        """
        known = {variation.name: variation for variation in self.variations}
        for name in names:
            if name not in known:
                raise SettingsError(f"unknown variation {name!r}; {did_you_mean(name, known)}")
        wanted = {*names, *(known[name].beside or self.base for name in names)}
        chosen = tuple(v for v in self.variations if v.name in wanted)
        base = self.base if self.base in wanted else chosen[0].name
        return replace(self, variations=chosen, base=base, sizes=None)


def trainings(trials: Mapping[str, Trial]) -> dict[str, Recipe | Tokenizing]:
    """How each trial is pretrained that is, by name, and how the tokenizers of some are trained, by `tokenizer_of` it."""
    recipes: dict[str, Recipe | Tokenizing] = {}
    for name, trial in trials.items():
        if trial.start == "pretrained":
            recipes[name] = trial.recipe
        if trial.tokenizing is not None:
            recipes[tokenizer_of(name)] = trial.tokenizing
    return recipes


def tokenizer_of(name: str) -> str:
    """What the tokenizer of a trial is called, where costs are told by name."""
    return f"tokenizer of {name}"
