"""What is done in a run, and what it may know of the run that it is done in."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import nn

from unmask.channels import ChannelStatistics
from unmask.contracts import Batch, ImageSource
from unmask.data import AnySource
from unmask.data.in_order import Unreadable
from unmask.formats.model import ModelSpec, Weights
from unmask.training.hardware import Hardware


@runtime_checkable
class Setting(Protocol):
    """The fields of a run that every job shares: on what, and where."""

    @property
    def recipe_name(self) -> str:
        """The recipe that it began as."""
        ...

    @property
    def data(self) -> AnySource:
        """Where the images are."""
        ...

    @property
    def images(self) -> int:
        """How many images there are to learn from."""
        ...

    @property
    def channels(self) -> int:
        """Channels of an image."""
        ...

    @property
    def statistics(self) -> ChannelStatistics:
        """Mean, deviation and range of each channel."""
        ...

    @property
    def seed(self) -> int:
        """Seed of all that is drawn."""
        ...

    @property
    def hardware(self) -> Hardware:
        """What must not change the result."""
        ...

    @property
    def unmask_version(self) -> str:
        """The version of this package that began the run."""
        ...

    @property
    def steps(self) -> int:
        """Steps in all."""
        ...

    def images_seen(self, step: int) -> int:
        """Images shown up to a step."""
        ...


class Images(NamedTuple):
    """The images of a run, opened."""

    train: ImageSource
    """Those to learn from."""
    test: ImageSource | None = None
    """Those to score on; None where nothing is scored."""
    held_out: ImageSource | None = None
    """Training images that are kept for choosing thresholds; None where there are none to choose."""
    split: str = ""
    """How the split came about, in words."""


class Picture(NamedTuple):
    """Versions of an image to draw beside one another, each [c h w] between 0 and 1."""

    versions: list[Any]
    name: str


class Outcome(NamedTuple):
    """What a trained module scores."""

    result: dict[str, Any]
    """JSON values, kept as `results.json`."""
    score: Any
    """The score itself, for the console."""
    unreadable: Unreadable
    pictures: tuple[Picture, ...] = ()


Change = Callable[[Batch, int], Batch]
"""Changes the batch of a step before it is trained on."""


@runtime_checkable
class Watching(Protocol):
    """Looks at the module now and then during training."""

    def due(self, step: int) -> bool:
        """Whether there is a look after this step."""
        ...

    def look(self) -> dict[str, float]:
        """What is seen now, as fields of the step's line in the log."""
        ...


@runtime_checkable
class Job(Protocol):
    """What a run does. A new one is a spec with these methods, and one line in `runs.run.AnyJob`."""

    @property
    def recipe(self) -> Any:
        """Everything that changes the result."""
        ...

    @property
    def init(self) -> str | None:
        """The weights that it started from, in words; None if they were drawn from the seed."""
        ...

    @property
    def command(self) -> str:
        """The command that makes such runs."""
        ...

    @property
    def is_scored(self) -> bool:
        """Whether `score` gives something, so that a run is finished only with its results."""
        ...

    def knows(self, images: Images) -> bool:
        """Whether the annotations of these images are those that it began with."""
        ...

    def open(self, data: AnySource, seed: int) -> Images:
        """The images that it needs; raises DataError if they will not do."""
        ...

    def model(self, run: Setting) -> ModelSpec | None:
        """Shape and origin of the encoder that it trains; None if it trains none."""
        ...

    def build(self, run: Setting, weights: Weights | None = None) -> nn.Module:
        """The module that it trains, around given weights or with weights drawn from the seed."""
        ...

    def fit(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Prepare the module on training images, before the first step of all."""
        ...

    def change(self, run: Setting) -> Change | None:
        """How batches are changed before they are trained on; None if they are not."""
        ...

    def watch(self, run: Setting, source: ImageSource, module: nn.Module) -> Watching | None:
        """Who looks at the module during training; None if nobody does."""
        ...

    def score(self, run: Setting, module: nn.Module, images: Images) -> Outcome | None:
        """What the trained module scores; None where there is nothing to score on.

        With several processes, all must call it.
        """
        ...
