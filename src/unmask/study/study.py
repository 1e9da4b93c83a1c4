"""The definition of a study: a base at some scale, its variations, the measurements and the published results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeVar, get_args

from unmask.contracts import Size
from unmask.data.mixing import UNMIXED
from unmask.data.views import CenterCrop, RandomCrop
from unmask.encoders.vit import ViT
from unmask.errors import SettingsError, UnmaskError, did_you_mean
from unmask.masking import count_visible
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.recipes.finetune import FINETUNE_L16, FINETUNE_TI4
from unmask.recipes.mae import MAE_L16, MAE_TI4
from unmask.targets import Pixels
from unmask.tasks import Classify
from unmask.training.optimizers import LayerwiseAdamW
from unmask.training.schedules import WarmupCosine
from unmask.traits import Hiding

Score = Literal["finetune", "linear", "attentive", "knn"]
"""Test accuracy by a protocol of `unmask evaluate`."""

SCORES: tuple[str, ...] = get_args(Score)

Published = Mapping[str, float]
"""Accuracy in per cent by protocol; or "hours" of training."""


Training = TypeVar("Training", Recipe, Transfer, Tokenizing)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row of a study's table: how to pretrain, and how to fine-tune."""

    recipe: Recipe
    """The pretraining."""

    transfer: Transfer
    """The fine-tuning, if it is measured."""

    labels: str = "all"
    """Training labels per class: a number, a percentage, or all."""

    start: Literal["pretrained", "given", "drawn"] = "pretrained"
    """The encoder to score: pretrained here; from a run or weights; or with random weights, trained from scratch with labels."""

    weights: str = ""
    """The path of the run or the weights that are given."""

    tokenizing: Tokenizing | None = None
    """How to train the tokenizer whose codes are the target, on the same images; None for other targets."""

    def pretrained(self, **changes: object) -> "Trial":
        """The trial with changes to the pretraining recipe."""
        return replace(self, recipe=replace(self.recipe, **changes))

    def objective(self, **changes: object) -> "Trial":
        """The trial with changes to the objective."""
        return self.pretrained(objective=replace(self.recipe.objective, **changes))

    def tuned(self, **changes: object) -> "Trial":
        """The trial with changes to the fine-tuning recipe."""
        return replace(self, transfer=replace(self.transfer, **changes))

    def shortened(self, factor: float) -> "Trial":
        """The trial with the epochs and warm-ups of all trainings multiplied by a factor."""
        return replace(
            self,
            recipe=_shorter(self.recipe, factor),
            transfer=_shorter(self.transfer, factor),
            tokenizing=None if self.tokenizing is None else _shorter(self.tokenizing, factor),
        )

    def at_size(self, size: Size) -> "Trial":
        """The trial with another image size in all trainings."""
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
    """The size of a study's base, and its number of images."""

    base: Trial
    """The trial that every study varies."""

    images: int | None
    """Number of training images, the same share of every class; None for all."""

    about: str
    """Size and expected time, in words."""


_TINY_ENCODER = ViT(patch_size=4, embed_dim=96, depth=4, num_heads=3)

_TINY = Trial(
    recipe=replace(
        MAE_TI4,
        encoder=_TINY_ENCODER,
        objective=MAE(
            target=Pixels(), decoder=SelfAttentionDecoder(depth=2, embed_dim=48, num_heads=3)
        ),
        schedule=WarmupCosine(base_lr=2e-3, warmup_epochs=1),
        batch_size=128,
        epochs=10,
    ),
    transfer=Transfer(
        encoder=_TINY_ENCODER,
        task=Classify(label_smoothing=0.1, drop_path=0.1),
        views=RandomCrop(smallest_share=0.4, flip_probability=0.5),
        test_views=CenterCrop(),
        mixing=UNMIXED,
        optimizer=LayerwiseAdamW(layer_decay=0.75),
        schedule=WarmupCosine(base_lr=4e-3, warmup_epochs=0.5),
        image_size=Size(32, 32),
        batch_size=64,
        epochs=3,
    ),
)

TINY = Scale(
    base=_TINY,
    images=10_000,
    about="4 blocks of 96, patches of 4 of 32 pixels, 10,000 images, 10 epochs, then 3 of fine-tuning; four minutes of one CPU core a run",
)

SMALL = Scale(
    base=Trial(
        recipe=replace(MAE_TI4, objective=replace(MAE_TI4.objective, target=Pixels()), epochs=200),
        transfer=FINETUNE_TI4,
    ),
    images=None,
    about="ViT-Ti/4 at 32 pixels, all images, 200 epochs; for a GPU",
)

PAPER = Scale(
    base=Trial(
        recipe=replace(MAE_L16, objective=replace(MAE_L16.objective, target=Pixels())),
        transfer=FINETUNE_L16,
    ),
    images=None,
    about="ViT-L/16 at 224 pixels, 800 epochs, pixels without normalisation, as in the paper's table 1",
)

SCALES: dict[str, Scale] = {"tiny": TINY, "small": SMALL, "paper": PAPER}


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One row of a study's table."""

    name: str
    """Name in the table."""

    change: Callable[[Trial], Trial]
    """A function of the base; its changes are relative to the base, so that they work at every scale."""

    published: Published = field(default_factory=dict[str, float])
    """The paper's values; empty if it has none."""

    published_epochs: Mapping[str, int] = field(default_factory=dict[str, int])
    """Epochs of pretraining behind the paper's values, by protocol; empty if all variations were trained alike.

    Only values of equal epochs are put in an order."""

    beside: str | None = None
    """The variation to compare with; None for the base of the study."""


class Sizes(NamedTuple):
    """Variations along one axis, with a line for each method."""

    places: tuple[str, ...]
    """Names of the sizes, smallest first."""
    lines: Mapping[str, tuple[str, ...]]
    """The variations of each method, one for each size."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison of variations of one base."""

    title: str
    """What is varied."""

    source: str
    """The paper's table or figure."""

    base: str
    """Name of the variation that the others are compared with."""

    variations: tuple[Variation, ...]
    """The variations, in the order of the table."""

    scores: tuple[Score, ...] = ("finetune", "linear", "knn")
    """Protocols; empty if only time is measured."""

    timed: bool = True
    """Whether FLOPs, time and memory of a step are measured."""

    curve: bool = False
    """Whether the variations are points along one axis, drawn as a curve."""

    scale: Scale | None = None
    """The scale, if it is not that of `--scale`."""

    sizes: Sizes | None = None
    """The lines of a plot against size, if the variations are methods at several sizes."""

    def __post_init__(self) -> None:
        names = [variation.name for variation in self.variations]
        if len(set(names)) < len(names):
            raise SettingsError(
                f"two variations of a study have the same name: {', '.join(names)}; rename one"
            )
        for base in (self.base, *(variation.beside for variation in self.variations)):
            if base is not None and base not in names:
                raise SettingsError(
                    f"the base {base!r} is not one of the variations: {', '.join(names)}"
                )
        unknown = [score for score in self.scores if score not in SCORES]
        if unknown:
            raise SettingsError(f"scores must be among {', '.join(SCORES)}, got {unknown[0]!r}")
        if not self.scores and not self.timed:
            raise SettingsError("a study must measure scores or time; set scores or timed")

    def trials(self, base: Trial) -> dict[str, Trial]:
        """Every variation of a base, by name.

        Raises:
            SettingsError: with each variation that is impossible for this base, and why.
        """
        trials: dict[str, Trial] = {}
        refused: list[str] = []
        for variation in self.variations:
            try:
                trials[variation.name] = trial = variation.change(base)
                objective = trial.recipe.objective
                if isinstance(objective, Hiding):  # raises if the masking does not fit the grid
                    count_visible(objective.masking, trial.recipe.encoder_grid())
            except UnmaskError as error:
                refused.append(f"{variation.name}: {error}")
        if refused:
            raise SettingsError(
                "nothing was run, because these variations are impossible at this scale:\n  "
                + "\n  ".join(refused)
            )
        return trials

    def only(self, names: Sequence[str]) -> "Study":
        """The study of some variations and those that they are compared with.

        Raises:
            SettingsError: with the known names.
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
    """The pretraining recipes by name of trial, and the tokenizers' recipes by `tokenizer_of` that name."""
    recipes: dict[str, Recipe | Tokenizing] = {}
    for name, trial in trials.items():
        if trial.start == "pretrained":
            recipes[name] = trial.recipe
        if trial.tokenizing is not None:
            recipes[tokenizer_of(name)] = trial.tokenizing
    return recipes


def tokenizer_of(name: str) -> str:
    """The name of a trial's tokenizer among costs."""
    return f"tokenizer of {name}"
