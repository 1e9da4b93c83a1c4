"""Comparing pretraining methods on the same encoder: table 3 of the MAE paper as a study."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

from unmask.contracts import Size
from unmask.data.draws import check_amount, draw_few
from unmask.data.few_labels import classes_of
from unmask.data.labelled import Labelled
from unmask.data.multi_views import MultiCrop
from unmask.encoders import ViT
from unmask.errors import SettingsError, did_you_mean
from unmask.formats.model import ModelSpec
from unmask.objectives import Latent
from unmask.recipes import RECIPES, Recipe
from unmask.recipes.tokenizer import TOKENIZER_B16, TOKENIZER_TI4
from unmask.spec import within
from unmask.study.cost import StepCost
from unmask.study.study import Sizes, Study, Trial, Variation, tokenizer_of
from unmask.targets import TokenizerCodes
from unmask.training.schedules import fitting_batch

Equal = Literal["epochs", "compute", "time"]
"""What is equal for all methods: epochs, FLOPs, or time on this machine."""

_SCRATCH = "scratch"  # trains the first method's encoder on labels only
_SCRATCH_AS = "scratch as "  # and a method: trains the encoder of that method on labels only
_BEIT = "beit"  # predicts the codes of a tokenizer, which is trained first
_WIDE = 384  # from this width on, the recipes for ViT-B fit better than those for ViT-Ti


class Trained(NamedTuple):
    """A published accuracy."""

    percent: float
    epochs: int
    """Of the pretraining."""


METHODS: dict[str, dict[str, Trained]] = {
    "mae": {"finetune": Trained(83.6, 1600), "linear": Trained(68.0, 1600)},
    "dino": {"finetune": Trained(82.8, 300), "linear": Trained(78.2, 400)},
    "moco3": {"finetune": Trained(83.2, 300), "linear": Trained(76.7, 300)},
    _BEIT: {"finetune": Trained(83.2, 800)},
    "simmim": {},
    "aim": {},
    "latent": {},
    "fast": {"finetune": Trained(83.7, 800)},
    "budget": {"finetune": Trained(82.9, 100)},
    "dense": {},
    "partition": {},
    "muon": {},
    _SCRATCH: {"finetune": Trained(82.3, 0)},
}
"""Every method, with ViT-B on ImageNet-1K: fine-tuned from MAE's table 3, linear from table 12 and the methods' own papers.

Epochs of pretraining are from the papers that the values come from (those of DINO's and BEiT's fine-tuned values from
memory); 0 means random weights.
"""

_SHAPES = {"xs": (96, 4, 3), "ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}
"""Width, blocks and heads; all except xs are from DeiT and ViT."""

_LARGE_PATCH = 16
_BATCH = 128
_TOKENIZER_EPOCHS = 1 / 3  # of the first method's epochs
_MOST_OF_TOKENIZER = 0.9  # largest share of a method's FLOPs or time that its tokenizer may take


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The methods and encoders of a comparison."""

    methods: tuple[str, ...]
    """Names of methods; all others are compared with the first."""

    encoders: tuple[str, ...]
    """Encoders, each a shape and a patch size, such as ti4 or s16."""

    labels: tuple[str, ...]
    """Amounts of labels per class for training."""

    epochs: float
    """Epochs of the first method."""

    image_size: Size | None
    """Pixels of a crop; None for the recipes' sizes."""

    given: Mapping[str, ModelSpec] = field(default_factory=dict[str, ModelSpec])
    """The encoders of runs and weights among the methods, by their paths; these are not pretrained."""

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS and method not in self.given:
                raise SettingsError(
                    f"unknown method {method!r}; {did_you_mean(method, METHODS)}, or the path of a run or of weights"
                )
        pretrained = [one for one in self.methods if one not in self.given and one != _SCRATCH]
        if self.methods[0] in self.given and pretrained:
            raise SettingsError(
                f"{self.methods[0]} is not pretrained here, so its cost is not known for {pretrained[0]}; put {pretrained[0]} "
                "first, or leave it out"
            )
        if self.given and len(self.encoders) > 1:
            raise SettingsError(
                "runs and weights have encoders of their own; give one of --encoders beside them"
            )
        for kind, names in (("methods", self.methods), ("encoders", self.encoders)):
            if len(set(names)) < len(names):
                raise SettingsError(f"--{kind} has a name twice: {','.join(names)}; remove one")
        if self.methods[0] == _SCRATCH:
            raise SettingsError(
                "the others are compared with the first method, and scratch does not pretrain; put another "
                "method first"
            )
        within(self, "(0, inf)", "epochs")
        for amount in self.labels:
            check_amount(amount)

    def study(self) -> Study:
        """The study of all methods, encoders and amounts of labels."""
        methods = self._all_methods()
        variations = [
            self._variation(method, encoder, amount)
            for encoder in self.encoders
            for amount in self.labels
            for method in methods
        ]
        lines = {  # of the plot against size, with the last amount of labels
            method: tuple(self._name(method, encoder, self.labels[-1]) for encoder in self.encoders)
            for method in methods
        }
        pretrains = any(method in METHODS and method != _SCRATCH for method in methods)
        return Study(
            title="Pretraining methods on the same encoder"
            if pretrains
            else "Encoders, tuned alike",
            source="MAE table 3, table 12 and the methods' own papers (ViT-B on ImageNet-1K)"
            if pretrains
            else "Runs and weights are scored as they are, whatever they were pretrained on and for how long",
            base=self._name(self.methods[0], self.encoders[0], self.labels[-1]),
            variations=tuple(variations),
            scores=("finetune", "linear", "attentive", "knn"),
            sizes=Sizes(self.encoders, lines) if len(self.encoders) > 1 else None,
        )

    def _variation(self, method: str, encoder: str, amount: str) -> Variation:
        published = METHODS.get(method, {}) if amount == "all" else {}
        return Variation(
            name=self._name(method, encoder, amount),
            change=partial(self._trial, method, encoder, amount),
            published={score: trained.percent for score, trained in published.items()},
            published_epochs={score: trained.epochs for score, trained in published.items()},
            beside=self._name(self.methods[0], encoder, amount),
        )

    def _all_methods(self) -> list[str]:
        """The methods, and scratch for each different encoder if scratch is one: BEiT's blocks differ from MAE's."""
        methods, encoders = list(self.methods), [self._encoder(self.methods[0])]
        for method in self.methods[1:] if _SCRATCH in self.methods else ():
            if method != _SCRATCH and self._encoder(method) not in encoders:
                encoders.append(self._encoder(method))
                methods.append(_SCRATCH_AS + method)
        return methods

    def _encoder(self, method: str) -> ViT:
        if method in self.given:
            return self.given[method].encoder
        return fitted(method, self.encoders[0], self.epochs).encoder

    def _name(self, method: str, encoder: str, amount: str) -> str:
        parts = [method]
        if len(self.encoders) > 1:
            parts.append(encoder)
        if len(self.labels) > 1:
            parts.append(f"at {amount}")
        return " ".join(parts)

    def _trial(self, method: str, encoder: str, amount: str, base: Trial) -> Trial:
        """A method's recipe on an encoder, with the epochs of the first method, and the base's fine-tuning."""
        source = method.removeprefix(_SCRATCH_AS)
        source = source if source != _SCRATCH else self.methods[0]
        if source in self.given:
            recipe = self._with_encoder(base.recipe, self.given[source])
        else:
            recipe = fitted(source, encoder, self.epochs)
        if self.image_size is not None:
            recipe = resized(recipe, self.image_size)
        transfer = replace(base.transfer, encoder=recipe.encoder, image_size=recipe.image_size)
        if method in self.given:
            return Trial(
                recipe=recipe, transfer=transfer, labels=amount, start="given", weights=method
            )
        start = "drawn" if method.startswith(_SCRATCH) else "pretrained"
        trial = Trial(recipe=recipe, transfer=transfer, labels=amount, start=start)
        return tokenized(trial, self.epochs * _TOKENIZER_EPOCHS) if method == _BEIT else trial

    @staticmethod
    def _with_encoder(recipe: Recipe, spec: ModelSpec) -> Recipe:
        """A recipe, which is not carried out, with a given encoder at its image size."""
        return replace(recipe, encoder=spec.encoder, image_size=spec.image_size)


def fitted(method: str, encoder: str, epochs: float) -> Recipe:
    """A method's recipe on an encoder, with batches of 128 and the peak learning rate of its published batch size.

    Decoders, heads and learning rates are those of ViT-B or ViT-Ti, whichever width is closer. Image size and crops
    depend on the patch size: same_patches for patches of 16 pixels or more, else images of 32 pixels.

    Raises:
        SettingsError: with the known encoders, or the methods that have a recipe.
    """
    match = re.fullmatch(r"([a-z]+)(\d+)", encoder)
    if match is None or match[1] not in _SHAPES or int(match[2]) < 1:
        raise SettingsError(
            f"each of --encoders must be one of {', '.join(_SHAPES)} and a patch size, such as ti4 or s16, got {encoder!r}"
        )
    patch = int(match[2])
    width, depth, heads = _SHAPES[match[1]]
    recipe = _published(method, "b16" if width >= _WIDE else "ti4")
    same_patches = _published(method, "b16" if patch >= _LARGE_PATCH else "ti4")
    recipe = replace(recipe, image_size=same_patches.image_size, views=same_patches.views)
    shape = {"patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads}
    batch = min(_BATCH, recipe.batch_size)
    schedule = replace(
        recipe.schedule,
        base_lr=recipe.schedule.peak(recipe.batch_size) * 256 / batch,
        warmup_epochs=epochs / 10,
    )
    objective = recipe.objective
    if isinstance(objective, Latent):  # the same share of the blocks
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
        raise SettingsError(f"there is no recipe {name} yet; {did_you_mean(name, RECIPES)}")
    return RECIPES[name].recipe


def resized(recipe: Recipe, size: Size) -> Recipe:
    """The recipe at another image size; small views are scaled with it, to whole patches."""
    views, patch = recipe.views, recipe.encoder.patch_size
    if isinstance(views, MultiCrop):
        sides = zip(views.small_size, recipe.image_size, size, strict=True)
        small = (max(1, round(side * new / old / patch)) * patch for side, old, new in sides)
        views = replace(views, small_size=Size(*small))
    return replace(recipe, image_size=size, views=views)


def tokenized(trial: Trial, epochs: float | None = None) -> Trial:
    """The trial with a tokenizer's codes as target; the tokenizer's recipe depends on the encoder's width.

    The tokenizer is trained first on the same images, for `epochs` (with a twentieth of them as warm-up), or as its
    recipe says.
    """
    recipe = trial.recipe
    chosen = TOKENIZER_B16 if recipe.encoder.embed_dim >= _WIDE else TOKENIZER_TI4
    chosen = replace(chosen, patch_size=recipe.encoder.patch_size, image_size=recipe.image_size)
    if epochs is not None:
        schedule = replace(chosen.schedule, warmup_epochs=epochs / 20)
        chosen = replace(chosen, epochs=epochs, schedule=schedule)
    target = TokenizerCodes(path="", tokenizer=chosen.tokenizer)  # the path is set after training
    return replace(trial.objective(target=target), tokenizing=chosen)


def equalised(
    study: Study, trials: Mapping[str, Trial], costs: Mapping[str, StepCost], equal: Equal
) -> dict[str, Trial]:
    """The trials with so many epochs that each takes as many FLOPs, or as much time, as the one it is compared with.

    The cost of a tokenizer is subtracted first.

    Raises:
        SettingsError: if a tokenizer leaves too little for its trial.
    """
    beside = {variation.name: variation.beside or study.base for variation in study.variations}
    equal_trials: dict[str, Trial] = {}
    for name, trial in trials.items():
        if trial.start != "pretrained":
            equal_trials[name] = trial
            continue
        epochs = trial.recipe.epochs
        if equal != "epochs":
            available = epochs * _cost_per_image(costs[beside[name]], equal)
            codes, tokenizer_cost = trial.tokenizing, 0.0
            if codes:
                tokenizer_cost = codes.epochs * _cost_per_image(costs[tokenizer_of(name)], equal)
            if tokenizer_cost > _MOST_OF_TOKENIZER * available:
                raise SettingsError(
                    f"{name}: its tokenizer alone takes {100 * tokenizer_cost / available:.0f} % of what each method may "
                    "use; use more --epochs, or --equal epochs"
                )
            left = available - tokenizer_cost
            epochs = float(f"{left / _cost_per_image(costs[name], equal):.3g}")
        schedule = trial.recipe.schedule
        equal_trials[name] = trial.pretrained(
            epochs=epochs,
            schedule=replace(schedule, warmup_epochs=epochs / 10),
        )
    return equal_trials


def _cost_per_image(cost: StepCost, equal: Equal) -> float:
    """FLOPs per image, or seconds per batch, which is the same for all measurements."""
    return cost.flops if equal == "compute" else cost.seconds + cost.update_seconds


def of_steps(trials: Mapping[str, Trial], labelled: Labelled, steps: int) -> dict[str, Trial]:
    """The trials, each fine-tuned for this number of steps on its labels, with a tenth of them as warm-up."""
    train = labelled.train
    names, amounts = train.annotations.names, dict.fromkeys(one.labels for one in trials.values())
    labels = train.labels() if list(amounts) == ["all"] else classes_of(train)
    tuned: dict[str, Trial] = {}
    for name, trial in trials.items():
        images = len(draw_few(labels, names, trial.labels, 0))
        epochs = steps * fitting_batch(trial.transfer.batch_size, images) / images
        schedule = replace(trial.transfer.schedule, warmup_epochs=epochs / 10)
        tuned[name] = trial.tuned(epochs=epochs, schedule=schedule)
    return tuned
