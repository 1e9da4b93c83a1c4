"""The differences between the training commands, and the request for a new run that each makes of a command line."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import nn

from unmask.channels import ChannelStatistics
from unmask.console.arguments import Peek, parse
from unmask.console.hardware import RunFlags, flags_of
from unmask.data import AnySource
from unmask.formats.model import Weights
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images, Outcome
from unmask.runs.run import AnyJob, Run
from unmask.runs.training import Progress
from unmask.training.step_cost import Cost

T = TypeVar("T")


class Common(NamedTuple):
    """The part of a request that is the same for every job."""

    recipe_name: str
    data: AnySource
    images: Images
    out: str | Path | None
    """The folder of the run; runs/RECIPE-DATA if None."""
    seed: int
    running: RunFlags


class Request(NamedTuple):
    """A request for a new run."""

    common: Common
    job: AnyJob
    """Without the description of its initial weights, which depends on the statistics."""
    statistics: Callable[[], ChannelStatistics]
    """Measures or reads mean and deviation of each channel."""
    start: Callable[[ChannelStatistics], tuple[AnyJob, Weights | None]]
    """Adapts initial weights to the images and prints what was changed; no weights: random ones from the seed."""
    say_images: Callable[[], None]
    say_plan: Callable[[Run, nn.Module, Cost], None]
    minutes: float | None = None
    """Time after which the run ends; None for as many epochs as the recipe says."""
    in_time: Callable[[Run, float], Run] = lambda run, _: run
    """The run with as many epochs as fit in its time, from the expected seconds of a step."""
    learned_before: tuple[AnySource, ...] = ()
    """The images that the initial weights have learned from."""


@dataclass(frozen=True)
class Command:
    """The differences between the training commands."""

    name: str
    """The name on the command line."""

    arguments: type[Any]
    """The dataclass of its flags."""

    request: Callable[[list[str], Peek], Request]
    """Turns a command line into the request for a new run."""

    fixed: tuple[str, ...]
    """The fields that cannot change when a run is resumed."""

    again: str
    """The command that starts another run with a change; {run} stands for the folder."""

    say_done: Callable[[Run, RunFolder, Images, Outcome | None], None]
    """Prints the result and the next commands to run."""

    draw: Callable[[RunFolder, Outcome], None] = lambda *_: None
    """Draws pictures of the result, before the file of results says that the run is finished."""

    longer: Callable[[Run, Path, str], str] = lambda *_: ""
    """How to train a run for so many more epochs, a sentence that ends in a command line; empty if there is no way."""

    watched: Callable[[Iterable[Progress]], Iterator[Progress]] = iter
    """Passes reports on and prints warnings and measurements."""

    def parse(self, arguments: list[str], default: T) -> T:
        """Parse flags, starting from default ones."""
        return parse(self.arguments, arguments, self.name, default)

    def flags_of(self, run: Run, root: str) -> Any:
        """The flags that would give the run in a folder, with every choice filled in."""
        return self.arguments(
            recipe=run.job.recipe,
            recipe_name=run.recipe_name,
            resume=root,
            seed=run.seed,
            running=flags_of(run),
        )
