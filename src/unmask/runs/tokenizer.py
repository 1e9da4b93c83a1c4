"""The whole of a tokenizer's run as one spec, written to `spec.json`, and the images it is judged on."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.subset import Subset
from unmask.errors import DataError
from unmask.randomness import derive, seeded
from unmask.recipes import Tokenizing
from unmask.runs.run import SPEC_VERSION, check_limits, check_version, hash_of
from unmask.spec import from_json
from unmask.targets.tokenizer import PatchTokenizer
from unmask.training.hardware import Hardware
from unmask.training.schedules import steps_of

TOKENIZER: Literal["tokenizer"] = "tokenizer"
_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.1, 1000


@dataclass(frozen=True, kw_only=True)
class TokenizerRun:
    """Which tokenizer is trained, on what, and where."""

    spec_version: int
    """Version of this layout; a newer one is refused."""

    purpose: Literal["tokenizer"] = TOKENIZER
    """Tells it from other runs."""

    recipe_name: str
    """The recipe that this began as."""

    recipe: Tokenizing
    """Everything that changes the result."""

    data: AnySource
    """Where the images are."""

    images: int
    """How many there are to learn from."""

    channels: int
    """Channels of an image."""

    fingerprint: str
    """Hash of the training images' names and sizes; the order of samples holds for these alone."""

    statistics: ChannelStatistics
    """Mean, deviation and range of each channel."""

    seed: int
    """Seed of weights, order, crops, and of the images held out where there is no test split."""

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

    def __post_init__(self) -> None:
        check_limits(self.save_every_minutes, self.max_set_aside)

    @property
    def init(self) -> str | None:
        """Nothing: its weights are drawn from the seed."""
        return None

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

    def build(self) -> PatchTokenizer:
        """The tokenizer, its weights drawn from the seed."""
        recipe = self.recipe
        with seeded("weights", self.seed):
            return recipe.tokenizer.build(
                recipe.patch_size, self.channels, self.statistics.tensors()
            )

    @property
    def hash(self) -> str:
        """Short hash of what must stay the same when a run goes on."""
        return hash_of(self)

    @classmethod
    def read(cls, data: Any) -> "TokenizerRun":
        """The run that a `spec.json` describes; a newer version is refused."""
        check_version(data)
        return from_json(cls, data)


def new_tokenizer(
    recipe_name: str,
    recipe: Tokenizing,
    data: AnySource,
    train: ImageSource,
    statistics: ChannelStatistics,
    hardware: Hardware,
    *,
    seed: int = 0,
    save_every_minutes: float = 10.0,
    max_set_aside: float = 0.05,
) -> TokenizerRun:
    """A run of a recipe on images, stamped with this package's and torch's versions."""
    import unmask

    return TokenizerRun(
        spec_version=SPEC_VERSION,
        recipe_name=recipe_name,
        recipe=recipe,
        data=data,
        images=len(train),
        channels=train.channels,
        fingerprint=train.fingerprint,
        statistics=statistics,
        seed=seed,
        hardware=hardware,
        save_every_minutes=save_every_minutes,
        max_set_aside=max_set_aside,
        unmask_version=unmask.__version__,
        torch_version=torch.__version__,
    )


class Parted(NamedTuple):
    """Images to learn codes from, and others to judge them on."""

    train: ImageSource
    test: ImageSource
    split: str
    """How the split came about, in words."""


def open_parted(data: AnySource, seed: int) -> Parted:
    """The training images and at most 1,000 others: the data's own test images, or a tenth drawn from the seed.

    Raises:
        DataError: if there is one image alone.
    """
    train = data.open("train")
    random = np.random.default_rng(derive("held out", seed))
    if "test" in data.splits():
        test = data.open("test")
        rows = np.sort(random.permutation(len(test))[:_HELD_OUT_MOST])
        if test.channels != train.channels:
            raise DataError(
                f"the training images have {train.channels} channels and the test images {test.channels}; both must "
                "have as many"
            )
        return Parted(train, Subset(test, rows), "the data's own test images")
    if len(train) < 2:
        raise DataError(
            f"{train.where} holds one image, and a tokenizer is judged on others than it learns from; add more"
        )
    order = random.permutation(len(train))
    count = min(_HELD_OUT_MOST, max(1, round(_HELD_OUT_SHARE * len(train))))
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    return Parted(Subset(train, rest), Subset(train, held), f"held out, drawn from seed {seed}")
