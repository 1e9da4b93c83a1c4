"""The head of a fine-tuned run: its classes, and what it says of images."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unmask.errors import DataError
from unmask.files import read_json
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.tasks.task import Prediction
from unmask.training.checkpoint import fill


class Guess(NamedTuple):
    """What a fine-tuned model says of an image."""

    chosen: tuple[str, ...]
    """The most likely class; of a multi-label task all classes at or above their thresholds, which may be none."""
    probabilities: dict[str, float]
    """The probability of each class by its name, the most likely first."""


class Classifier(NamedTuple):
    """A fine-tuned module with what it needs to name classes."""

    tuned: Tuned
    thresholds: tuple[float, ...] | None
    """For multi-label tasks: the probability from which on an image belongs to a class."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.tuned.job.annotations.names

    def predictions(self, outputs: Any) -> list[Prediction]:
        """Turn outputs of the module into a prediction for each image."""
        return self.tuned.job.recipe.task.predictions(outputs, self.thresholds)

    def guesses(self, outputs: Tensor) -> list[Guess]:
        """The same with names in place of numbers."""
        names = self.names
        return [
            Guess(
                tuple(names[number] for number in one.chosen),
                {names[n]: p for n, p in zip(one.classes, one.probabilities, strict=True)},
            )
            for one in self.predictions(outputs)
        ]


def load_classifier(path: Path | str, device: str = "cpu") -> Classifier:
    """The module of a fine-tuned run, from its newest complete checkpoint.

    Raises:
        RunError: if there is no such run, or no checkpoint yet.
    """
    folder = RunFolder(path)
    run = Run.read(folder, Finetune.command)
    assert isinstance(run.job, Finetune)
    checkpoint, _ = folder.newest_whole()
    module = run.build()
    fill(module, checkpoint.read("model"), checkpoint.folder)
    tuned = Tuned(module.to(device).eval(), run.job, run.statistics)
    return Classifier(tuned, _thresholds(folder))


def _thresholds(folder: RunFolder) -> tuple[float, ...] | None:
    """The thresholds chosen at the end of training; None before that, or for a task without thresholds."""
    try:
        thresholds = read_json(folder.results).get("thresholds")
        return None if thresholds is None else tuple(float(value) for value in thresholds)
    except (OSError, DataError, AttributeError, TypeError, ValueError):
        return None
