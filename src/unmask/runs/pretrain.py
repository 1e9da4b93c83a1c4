"""Pretraining: train an objective on images without annotations, and watch it for collapse."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.annotated import pictures_alone
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.recipes import Recipe
from unmask.runs.collapse import Watch
from unmask.runs.job import Change, Images, Outcome, Setting
from unmask.runs.target import fit_target
from unmask.traits import Accompanied


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pretrain an encoder."""

    command: ClassVar[str] = "pretrain"
    """The command that creates such runs."""

    score_types: ClassVar[tuple[()]] = ()
    """None: pretraining ends without a score."""

    recipe: Recipe
    """Settings that change the result."""

    init: str | None = None
    """Description of the initial weights; null for random weights from the seed."""

    def knows(self, images: Images) -> bool:
        """True: annotations do not matter here."""
        return True

    def open(self, data: AnySource, seed: int) -> Images:
        """The training images, without class maps and boxes; test images are kept for evaluation."""
        return Images(pictures_alone(data))

    def model(self, run: Setting) -> ModelSpec:
        """Shape and origin of encoder and objective."""
        start = f", started from ({self.init})" if self.init else ""
        return ModelSpec(
            format=FORMAT,
            encoder=self.recipe.encoder,
            objective=self.recipe.objective,
            image_size=self.recipe.image_size,
            channels=run.channels,
            statistics=run.statistics,
            origin=f"pretrained by unmask {run.unmask_version}, recipe {run.recipe_name}{start}",
        )

    def build(self, run: Setting, weights: Weights | None = None) -> nn.Module:
        """The objective with its encoder; tensors that `weights` lacks are drawn from the seed."""
        objective = self.model(run).build_objective(run.seed)
        if weights is not None:
            objective.load_state_dict({**objective.state_dict(), **weights.whole})
            if isinstance(objective, Accompanied):
                objective.begin()
        return objective

    def fit(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Fit the objective's target to training images, or load its tokenizer, if it needs one."""
        fit_target(run, self.recipe, source, module)

    def change(self, run: Setting) -> Change | None:
        """None: batches stay unchanged."""
        return None

    def watch(self, run: Setting, source: ImageSource, module: nn.Module) -> Watch:
        """A check for collapse, up to ten times a run."""
        return Watch(run, self.recipe, self.model(run), source, module)

    def score(self, run: Setting, module: nn.Module, images: Images) -> Outcome | None:
        """None: `unmask evaluate` scores an encoder."""
        return None
