"""The whole of a run as one spec, written to `spec.json`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.errors import RunError, SettingsError
from unmask.formats.model import FORMAT, ModelSpec
from unmask.objectives import AnyPretraining
from unmask.recipes import Recipe
from unmask.spec import digest, from_json, to_json
from unmask.training.hardware import Hardware
from unmask.training.schedules import steps_of

SPEC_VERSION = 1
_MAY_CHANGE = ("hardware", "save_every_minutes", "max_set_aside")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What runs, on what, and where."""

    spec_version: int
    """Version of this layout; a newer one is refused."""

    recipe_name: str
    """The recipe that this began as."""

    recipe: Recipe
    """Everything that changes the result."""

    data: AnySource
    """Where the images are."""

    images: int
    """How many images there are."""

    channels: int
    """Channels of an image."""

    fingerprint: str
    """Hash of the images' names and sizes; the order of samples holds for these alone."""

    statistics: ChannelStatistics
    """Mean, deviation and range of each channel."""

    seed: int
    """Seed of weights, order, crops and masks."""

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

    init: str | None = None
    """The weights that it started from, in words; null if they were drawn from the seed."""

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
        before = f", started from ({self.init})" if self.init else ""
        return f"pretrained by unmask {self.unmask_version}, recipe {self.recipe_name}{before}"

    @property
    def model(self) -> ModelSpec:
        """Shape and origin of what this run trains."""
        return ModelSpec(
            format=FORMAT,
            encoder=self.recipe.encoder,
            objective=self.recipe.objective,
            image_size=self.recipe.image_size,
            channels=self.channels,
            statistics=self.statistics,
            origin=self.origin,
        )

    def build(self) -> AnyPretraining:
        """The objective around a new encoder, its weights drawn from the seed."""
        return self.model.build_objective(self.seed)

    @property
    def hash(self) -> str:
        """Short hash of what must stay the same when a run goes on."""
        return hash_of(self)

    @classmethod
    def read(cls, data: Any) -> "Run":
        """The run that a `spec.json` describes; a newer version is refused."""
        check_version(data)
        return from_json(cls, data)


def check_limits(save_every_minutes: float, max_set_aside: float) -> None:
    """Refuse a time between checkpoints or a share of unusable images that makes no sense."""
    if not 0 <= save_every_minutes < math.inf:
        raise SettingsError(f"save_every_minutes must be 0 or more, got {save_every_minutes}")
    if not 0 <= max_set_aside <= 1:
        raise SettingsError(
            f"max_set_aside is a share between 0 and 1, got {max_set_aside}; 0.05 is 5 %"
        )


def check_version(data: Any) -> None:
    """Refuse a `spec.json` of a newer version."""
    version = data.get("spec_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SPEC_VERSION:
        raise RunError(
            f"this run's spec.json has version {version}, and this unmask reads up to "
            f"{SPEC_VERSION}; install a newer unmask"
        )


def hash_of(run: Any) -> str:
    """Short hash of the fields of a run that must stay the same when it goes on."""
    same = {key: value for key, value in to_json(run).items() if key not in _MAY_CHANGE}
    return digest(same)


def new_run(
    recipe_name: str,
    recipe: Recipe,
    data: AnySource,
    source: ImageSource,
    statistics: ChannelStatistics,
    hardware: Hardware,
    *,
    seed: int = 0,
    save_every_minutes: float = 10.0,
    max_set_aside: float = 0.05,
    init: str | None = None,
) -> Run:
    """A run of a recipe on the images of a source, stamped with this package's and torch's versions."""
    import unmask

    return Run(
        spec_version=SPEC_VERSION,
        recipe_name=recipe_name,
        recipe=recipe,
        data=data,
        images=len(source),
        channels=source.channels,
        fingerprint=source.fingerprint,
        statistics=statistics,
        seed=seed,
        hardware=hardware,
        save_every_minutes=save_every_minutes,
        max_set_aside=max_set_aside,
        unmask_version=unmask.__version__,
        torch_version=torch.__version__,
        init=init,
    )


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module, position tables included."""
    return sum(parameter.numel() for parameter in module.parameters())
