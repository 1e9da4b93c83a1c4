"""Ways to pretrain the same encoder, side by side: the paper's table 3 as a study."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from unmask.contracts import Size
from unmask.data.labelled import Labelled, draw_few
from unmask.data.multi_views import MultiCrop
from unmask.encoders import ViT
from unmask.errors import SettingsError, did_you_mean
from unmask.objectives import Latent
from unmask.recipes import RECIPES, Recipe
from unmask.study.cost import StepCost
from unmask.study.study import Published, Sizes, Study, Trial, Variation, tokenizer_of
from unmask.study.tokenized import WIDE, tokenized
from unmask.training.schedules import fitting_batch

Equal = Literal["epochs", "compute", "time"]
"""What all methods have as much of as the first: epochs, FLOPs, or seconds of this machine."""

SCRATCH = "scratch"
"""Trains the first method's encoder with labels alone."""

SCRATCH_AS = "scratch as "
"""Before a method's name: trains that method's encoder with labels alone, where it is built otherwise than the first's."""

BEIT = "beit"
"""Predicts the codes of a tokenizer, which is trained first."""

METHODS: dict[str, Published] = {
    "mae": {"finetune": 83.6, "linear": 68.0},
    "dino": {"finetune": 82.8, "linear": 78.2},
    "moco3": {"finetune": 83.2, "linear": 76.7},
    BEIT: {"finetune": 83.2},
    "simmim": {},
    "aim": {},
    "latent": {},
    "fast": {"finetune": 83.7},
    "budget": {"finetune": 82.9},
    "dense": {},
    "partition": {},
    "muon": {},
    SCRATCH: {"finetune": 82.3},
}
"""Every method, with ViT-B on ImageNet-1K: fine-tuned from MAE's table 3, linear from table 12 and the methods' own papers."""

_SHAPES = {"xs": (96, 4, 3), "ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}
"""Width, blocks and heads; all but xs are DeiT's and ViT's."""

_LARGE_PATCH = 16
_BATCH = 128
_TOKENIZER_EPOCHS = 1 / 3  # of the first method's epochs
_MOST_OF_TOKENIZER = 0.9  # of what a method may take


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which methods on which encoders."""

    methods: tuple[str, ...]
    """Names; the first is what the others are compared with."""

    encoders: tuple[str, ...]
    """A shape and a patch, such as ti4 or s16."""

    labels: tuple[str, ...]
    """Labels of each class to learn from."""

    epochs: float
    """Of the first method."""

    image_size: Size | None
    """Pixels of a crop; the recipes' if None."""

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise SettingsError(f"unknown method {method!r}; {did_you_mean(method, METHODS)}")
        for kind, names in (("methods", self.methods), ("encoders", self.encoders)):
            if len(set(names)) < len(names):
                raise SettingsError(f"--{kind} names one twice: {','.join(names)}")
        if self.methods[0] == SCRATCH:
            raise SettingsError(
                "the first method is what the others are compared with, and scratch pretrains nothing; name "
                "another one first"
            )
        if not 0 < self.epochs < float("inf"):
            raise SettingsError(f"--epochs must be above 0 and finite, got {self.epochs}")

    def study(self) -> Study:
        """The study of all methods, encoders and amounts of labels."""
        ways = self._ways()
        variations = [
            Variation(
                name=self._name(method, encoder, amount),
                change=partial(self._trial, method, encoder, amount),
                published=METHODS.get(method, {}) if amount == "all" else {},
                beside=self._name(self.methods[0], encoder, amount),
            )
            for encoder in self.encoders
            for amount in self.labels
            for method in ways
        ]
        return Study(
            title="Ways to pretrain the same encoder",
            source="MAE table 3, table 12 and the methods' own papers (ViT-B on ImageNet-1K)",
            base=self._name(self.methods[0], self.encoders[0], self.labels[-1]),
            variations=tuple(variations),
            scores=("finetune", "linear", "attentive", "knn"),
            sizes=self._sizes(ways),
        )

    def _sizes(self, ways: Sequence[str]) -> Sizes | None:
        """Every method along the encoders, with the last amount of labels; None if there is one encoder."""
        if len(self.encoders) == 1:
            return None
        amount = self.labels[-1]
        lines = {
            method: tuple(self._name(method, encoder, amount) for encoder in self.encoders)
            for method in ways
        }
        return Sizes(self.encoders, lines)

    def _ways(self) -> list[str]:
        """The methods and, if scratch is one, the same for other encoders of equal shape: BEiT's blocks are not MAE's."""
        ways, known = list(self.methods), [self._encoder(self.methods[0])]
        for method in self.methods[1:] if SCRATCH in self.methods else ():
            if method != SCRATCH and self._encoder(method) not in known:
                known.append(self._encoder(method))
                ways.append(SCRATCH_AS + method)
        return ways

    def _encoder(self, method: str) -> ViT:
        return fitted(method, self.encoders[0], self.epochs).encoder

    def _name(self, method: str, encoder: str, amount: str) -> str:
        parts = [method]
        if len(self.encoders) > 1:
            parts.append(encoder)
        if len(self.labels) > 1:
            parts.append(f"at {amount}")
        return " ".join(parts)

    def _trial(self, method: str, encoder: str, amount: str, base: Trial) -> Trial:
        """A method's recipe on an encoder, for the epochs of the first method, and a fine-tuning of its own length."""
        shown = method.removeprefix(SCRATCH_AS)
        recipe = fitted(shown if shown != SCRATCH else self.methods[0], encoder, self.epochs)
        if self.image_size is not None:
            recipe = resized(recipe, self.image_size)
        transfer = replace(base.transfer, encoder=recipe.encoder, image_size=recipe.image_size)
        start = "drawn" if method.startswith(SCRATCH) else "pretrained"
        trial = Trial(recipe=recipe, transfer=transfer, labels=amount, start=start)
        return tokenized(trial, self.epochs * _TOKENIZER_EPOCHS) if method == BEIT else trial


def fitted(method: str, encoder: str, epochs: float) -> Recipe:
    """A method's recipe on an encoder, with batches of 128 and the peak rate of its own batch.

    Decoders, heads and rates are those of ViT-B or of ViT-Ti, whichever is nearer to the encoder's width; crops
    those of its patches: photographs for patches of 16 and more, images of 32 pixels for smaller ones.

    Raises:
        SettingsError: naming the encoders that there are, or the methods that have a recipe.
    """
    found = re.fullmatch(r"([a-z]+)(\d+)", encoder)
    if found is None or found[1] not in _SHAPES or int(found[2]) < 1:
        raise SettingsError(
            f"an encoder is one of {', '.join(_SHAPES)} and a patch, such as ti4 or s16; got {encoder!r}"
        )
    patch = int(found[2])
    width, depth, heads = _SHAPES[found[1]]
    recipe = _published(method, "b16" if width >= WIDE else "ti4")
    seen = _published(method, "b16" if patch >= _LARGE_PATCH else "ti4")
    recipe = replace(recipe, image_size=seen.image_size, views=seen.views)
    shape = {"patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads}
    batch = min(_BATCH, recipe.batch_size)
    schedule = replace(
        recipe.schedule,
        base_lr=recipe.schedule.peak(recipe.batch_size) * 256 / batch,
        warmup_epochs=epochs / 10,
    )
    objective = recipe.objective
    if isinstance(objective, Latent):  # as large a part of the blocks
        blocks = max(1, objective.target_blocks * depth // recipe.encoder.depth)
        objective = replace(objective, target_blocks=blocks)
    return replace(
        recipe,
        encoder=replace(recipe.encoder, **shape),
        objective=objective,
        batch_size=batch,
        schedule=schedule,
        epochs=epochs,
    )


def _published(method: str, size: str) -> Recipe:
    name = f"{method}-{size}"
    if name not in RECIPES:
        raise SettingsError(f"no recipe {name} yet; {did_you_mean(name, RECIPES)}")
    return RECIPES[name].recipe


def resized(recipe: Recipe, size: Size) -> Recipe:
    """The recipe at another image size; small views keep their share of it, in whole patches."""
    views, patch = recipe.views, recipe.encoder.patch_size
    if isinstance(views, MultiCrop):
        sides = zip(views.small_size, recipe.image_size, size, strict=True)
        small = (max(1, round(side * new / old / patch)) * patch for side, old, new in sides)
        views = replace(views, small_size=Size(*small))
    return replace(recipe, image_size=size, views=views)


def equalised(
    study: Study, trials: Mapping[str, Trial], costs: Mapping[str, StepCost], equal: Equal
) -> dict[str, Trial]:
    """The trials with as many epochs as what each is compared with has FLOPs or seconds for.

    What a tokenizer costs is taken off its trial's share.

    Raises:
        SettingsError: if next to nothing would be left of that.
    """
    beside = {variation.name: variation.beside or study.base for variation in study.variations}
    found: dict[str, Trial] = {}
    for name, trial in trials.items():
        if trial.start == "drawn":
            found[name] = trial
            continue
        epochs = trial.recipe.epochs
        if equal != "epochs":
            given = epochs * _price(costs[beside[name]], equal)
            codes = trial.tokenizing
            taken = codes.epochs * _price(costs[tokenizer_of(name)], equal) if codes else 0.0
            if taken > _MOST_OF_TOKENIZER * given:
                raise SettingsError(
                    f"{name}: its tokenizer alone takes {100 * taken / given:.0f} % of what all methods may; give more "
                    "with --epochs, or compare --equal epochs"
                )
            epochs = float(f"{(given - taken) / _price(costs[name], equal):.3g}")
        schedule = trial.recipe.schedule
        found[name] = trial.pretrained(
            epochs=epochs,
            schedule=replace(schedule, warmup_epochs=epochs / 10),
        )
    return found


def _price(cost: StepCost, equal: Equal) -> float:
    """What an image costs, in what is to be equal; all were measured at one batch."""
    return cost.flops if equal == "compute" else cost.seconds + cost.update_seconds


def of_steps(trials: Mapping[str, Trial], labelled: Labelled, steps: int) -> dict[str, Trial]:
    """The trials, each fine-tuned for so many steps on its labels, a tenth of them to warm up."""
    train = labelled.train
    labels, names = train.labels(), train.annotations.names
    found: dict[str, Trial] = {}
    for name, trial in trials.items():
        images = len(draw_few(labels, names, trial.labels, 0))
        epochs = steps * fitting_batch(trial.transfer.batch_size, images) / images
        schedule = replace(trial.transfer.schedule, warmup_epochs=epochs / 10)
        found[name] = trial.tuned(epochs=epochs, schedule=schedule)
    return found
