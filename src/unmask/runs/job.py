"""The contract of a job: what a run does, and which fields of the run it may read."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import nn

from unmask.channels import ChannelStatistics
from unmask.contracts import Batch, ImageSource
from unmask.data import AnySource
from unmask.data.in_order import Unreadable
from unmask.data.labelled import with_channels
from unmask.data.statistics import read_as
from unmask.formats.model import ModelSpec, Weights
from unmask.measures import Scored
from unmask.training.hardware import Hardware


@runtime_checkable
class Setting(Protocol):
    """The fields of a run that a job may read: data, seed and hardware."""

    @property
    def recipe_name(self) -> str:
        """Name of the recipe that the run started from."""
        ...

    @property
    def channels(self) -> int:
        """Channels of an image."""
        ...

    @property
    def statistics(self) -> ChannelStatistics:
        """Mean, standard deviation and range of each channel."""
        ...

    @property
    def seed(self) -> int:
        """Seed of everything that is random."""
        ...

    @property
    def hardware(self) -> Hardware:
        """Settings that must not change the result."""
        ...

    @property
    def unmask_version(self) -> str:
        """The version of this package that started the run."""
        ...

    @property
    def steps(self) -> int:
        """Number of steps."""
        ...

    def images_seen(self, step: int) -> int:
        """Number of images shown up to a step."""
        ...


class Images(NamedTuple):
    """The opened images of a run."""

    train: ImageSource
    """Training images."""
    test: ImageSource | None = None
    """Test images; None if the job has no score."""
    held_out: ImageSource | None = None
    """Training images held out for choosing thresholds; None if the task chooses none."""
    split: str = ""
    """How the split was made, in words."""

    def read_as(self, statistics: ChannelStatistics, channels: int | None = None) -> "Images":
        """The same images, read as in a run with these statistics and channels."""

        def alike(source: ImageSource) -> ImageSource:
            whole = (
                source
                if channels is None
                else with_channels(source, channels, "this run learns from")
            )
            return read_as(whole, statistics)

        test, held_out = (
            None if source is None else alike(source) for source in (self.test, self.held_out)
        )
        return Images(alike(self.train), test, held_out, self.split)


class Picture(NamedTuple):
    """Versions of an image to draw side by side, each [c h w] between 0 and 1."""

    versions: list[Any]
    name: str


class Outcome(NamedTuple):
    """The score of a trained module."""

    result: dict[str, Any]
    """JSON values, written to `results.json`."""
    score: Any
    """The score itself, for the console."""
    unreadable: Unreadable
    pictures: tuple[Picture, ...] = ()
    examples: Any = ()
    """Test images with what is located in them, of dense tasks; see `runs.examples`."""
    confusion: Any = None
    """Images of each true class (rows) by predicted class (columns); None if the task has no such matrix."""


Change = Callable[[Batch, int], Batch]
"""Changes the batch of a step before training on it."""


@runtime_checkable
class Watching(Protocol):
    """Checks the module at some steps of training."""

    def due(self, step: int) -> bool:
        """Whether to check after this step."""
        ...

    def look(self) -> dict[str, float]:
        """Check now; returns fields for the step's line in the log."""
        ...


@runtime_checkable
class Job(Protocol):
    """What a run does. A new job is a spec with these methods, and one line in `runs.run.AnyJob`."""

    @property
    def recipe(self) -> Any:
        """Settings that change the result."""
        ...

    @property
    def init(self) -> str | None:
        """Description of the initial weights; None for random weights from the seed."""
        ...

    @property
    def command(self) -> str:
        """The command that creates such runs."""
        ...

    @property
    def score_types(self) -> tuple[type[Scored], ...]:
        """The classes of its scores, of which `results.json` holds one; without it, such a run is not finished.

        Empty if the job has no score.
        """
        ...

    def knows(self, images: Images) -> bool:
        """Whether the annotations of these images are the same as when the run started."""
        ...

    def open(self, data: AnySource, seed: int) -> Images:
        """Open the images that the job needs; raises DataError if they are unsuitable."""
        ...

    def model(self, run: Setting) -> ModelSpec | None:
        """Shape and origin of the trained encoder; None if the job trains no encoder."""
        ...

    def build(self, run: Setting, weights: Weights | None = None) -> nn.Module:
        """The module to train, from `weights` or with random weights from the seed."""
        ...

    def fit(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Prepare the module on training images, before the first step."""
        ...

    def change(self, run: Setting) -> Change | None:
        """The change of batches before training on them; None for no change."""
        ...

    def watch(self, run: Setting, source: ImageSource, module: nn.Module) -> Watching | None:
        """The check of the module during training; None for no check."""
        ...

    def score(self, run: Setting, module: nn.Module, images: Images) -> Outcome | None:
        """The score of the trained module; None if the job has no score.

        With several processes, all must call this.
        """
        ...
