"""Weights by their path: of a run, or of a file in any layout that `formats` knows."""

from pathlib import Path
from typing import NamedTuple

from unmask.errors import RunError
from unmask.formats import Hints, read_named
from unmask.formats.model import Weights, split
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run
from unmask.traits import Masked

_NO_HINTS = Hints()


class Found(NamedTuple):
    """Weights, and where they are from."""

    weights: Weights
    about: str
    """Which weights these are, in a few words."""
    layout: str
    """Its public name; a run's is unmask."""
    run: Run | None = None
    """The run of pretraining that made them, if one did."""
    step: int | None = None
    """The step of the run after which they were saved."""
    damaged: tuple[str, ...] = ()
    """A line for each damaged checkpoint that was passed over."""


def find_weights(path: Path | str, hints: Hints = _NO_HINTS) -> Found:
    """The newest whole checkpoint of a run, or the weights of a file or folder.

    Raises:
        RunError: if there is nothing, or a run without a checkpoint.
        DataError: if it is a file that cannot be used.
    """
    folder = RunFolder(path)
    if folder.spec.exists():
        return _of_run(folder)
    if not folder.root.exists():
        raise RunError(
            f"{path} holds no run (no spec.json){folder.nearby()}; there is nothing at that path"
        )
    layout, weights = read_named(path, hints)
    return Found(weights, f"{path}", layout)


def _of_run(folder: RunFolder) -> Found:
    """Of a classifier the encoder alone: of the average, where weights are averaged."""
    run = Run.read(folder, "finetune" if folder.made_by("finetune") else "pretrain")
    checkpoint, damaged = folder.newest_whole()
    if isinstance(run.job, Pretrain) and isinstance(run.job.recipe.objective, Masked):
        weights = Weights(run.model, *split(checkpoint.read("model")))
    else:  # what else it trains is of no use without its teacher
        weights = Weights(run.model.without_decoder(), checkpoint.read("encoder"), {})
    step = checkpoint.info.step
    about = f"{run.recipe_name}, step {step:,}"
    pretraining = run if isinstance(run.job, Pretrain) else None
    return Found(weights, about, "unmask", pretraining, step, damaged)
