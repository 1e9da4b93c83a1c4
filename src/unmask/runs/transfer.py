"""The whole of a run of fine-tuning as one spec, written to `spec.json`."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from unmask.channels import ChannelStatistics
from unmask.data import AnySource
from unmask.data.labelled import Labelled
from unmask.formats.adapt import adapt
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.randomness import seeded
from unmask.recipes.transfer import Transfer
from unmask.runs.run import SPEC_VERSION, Run, check_limits, check_version, hash_of
from unmask.runs.tokenizer import TokenizerRun
from unmask.spec import from_json
from unmask.tasks.classify import Classifier
from unmask.training.hardware import Hardware
from unmask.training.schedules import steps_of

PURPOSE: Literal["finetune"] = "finetune"


@dataclass(frozen=True, kw_only=True)
class TransferRun:
    """What is fine-tuned, on what, and where."""

    spec_version: int
    """Version of this layout; a newer one is refused."""

    purpose: Literal["finetune"] = PURPOSE
    """Tells it from a run of pretraining."""

    recipe_name: str
    """The recipe that this began as."""

    recipe: Transfer
    """Everything that changes the result."""

    data: AnySource
    """Where the labelled images are."""

    images: int
    """How many there are to learn from."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the head's scores."""

    channels: int
    """Channels of an image."""

    fingerprint: str
    """Hash of the training images' names and sizes; the order of samples holds for these alone."""

    statistics: ChannelStatistics
    """Mean, deviation and range of each channel."""

    seed: int
    """Seed of the head, of weights from scratch, of order, crops, mixing, and of the split where there is none."""

    hardware: Hardware
    """What must not change the result."""

    save_every_minutes: float
    """Time between checkpoints; 0 saves after every step."""

    max_set_aside: float
    """Share of images that may be unusable before the run stops."""

    unmask_version: str
    """The version of this package that began the run."""

    torch_version: str
    """The torch that began the run; exact continuation needs the same."""

    init: str | None
    """The weights that it started from, in words; null if from scratch."""

    def __post_init__(self) -> None:
        check_limits(self.save_every_minutes, self.max_set_aside)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return steps_of(self.recipe.epochs, self.images, self.recipe.batch_size)

    def images_seen(self, step: int) -> int:
        """Images shown up to a step."""
        return step * self.recipe.batch_size

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        recipe = self.recipe
        epoch = step * recipe.batch_size / self.images
        return recipe.schedule.rate(epoch, recipe.epochs, recipe.batch_size)

    @property
    def origin(self) -> str:
        """Where its weights come from, in words."""
        before = f"from ({self.init})" if self.init else "from scratch"
        return f"fine-tuned by unmask {self.unmask_version}, recipe {self.recipe_name}, {before}"

    @property
    def model(self) -> ModelSpec:
        """Shape and origin of the encoder."""
        return ModelSpec(
            format=FORMAT,
            encoder=self.recipe.encoder,
            objective=None,
            image_size=self.recipe.image_size,
            channels=self.channels,
            statistics=self.statistics,
            origin=self.origin,
        )

    def build(self, weights: Weights | None = None) -> Classifier:
        """The classifier around the given weights, resampled to the recipe's image size, or around drawn ones."""
        encoder = (
            self.model.build_encoder(self.seed)
            if weights is None
            else adapt(weights, self.recipe.image_size, self.statistics).build_encoder()
        )
        with seeded("head", self.seed):
            return self.recipe.task.build(encoder, len(self.classes))

    @property
    def hash(self) -> str:
        """Short hash of what must stay the same when a run goes on."""
        return hash_of(self)

    @classmethod
    def read(cls, data: Any) -> "TransferRun":
        """The run that a `spec.json` describes; a newer version is refused."""
        check_version(data)
        return from_json(cls, data)


AnyRun = Run | TransferRun | TokenizerRun


def new_transfer(
    recipe_name: str,
    recipe: Transfer,
    data: AnySource,
    labelled: Labelled,
    statistics: ChannelStatistics,
    hardware: Hardware,
    *,
    init: str | None,
    seed: int = 0,
    save_every_minutes: float = 10.0,
    max_set_aside: float = 0.05,
) -> TransferRun:
    """A run of a recipe on labelled images, stamped with this package's and torch's versions."""
    import unmask

    return TransferRun(
        spec_version=SPEC_VERSION,
        recipe_name=recipe_name,
        recipe=recipe,
        data=data,
        images=len(labelled.train),
        classes=labelled.train.annotations.names,
        channels=labelled.train.channels,
        fingerprint=labelled.train.fingerprint,
        statistics=statistics,
        seed=seed,
        hardware=hardware,
        save_every_minutes=save_every_minutes,
        max_set_aside=max_set_aside,
        unmask_version=unmask.__version__,
        torch_version=torch.__version__,
        init=init,
    )
