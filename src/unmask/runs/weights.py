"""Find weights by their path: a run, or a file in any layout that `formats` knows."""

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
    """Weights and their origin."""

    weights: Weights
    about: str
    """A short description of the weights."""
    layout: str
    """The name of the layout; that of a run is unmask."""
    run: Run | None = None
    """The pretraining run that made them, if there is one."""
    step: int | None = None
    """The step after which a run saved them."""
    damaged: tuple[str, ...] = ()
    """A line for each damaged checkpoint that was skipped."""


def find_weights(path: Path | str, hints: Hints = _NO_HINTS) -> Found:
    """The newest complete checkpoint of a run, or the weights of a file or folder.

    Raises:
        RunError: if there is nothing at the path, or a run without a checkpoint.
        DataError: if the file cannot be used.
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
    """Weights of a run; of a fine-tuned run only the encoder (the average, if weights are averaged)."""
    run = Run.read(folder, "pretrain", "finetune")
    checkpoint, damaged = folder.newest_whole()
    if isinstance(run.job, Pretrain) and isinstance(run.job.recipe.objective, Masked):
        weights = Weights(run.model, *split(checkpoint.read("model")))
    else:  # the rest of the model is useless without its teacher or its task
        weights = Weights(run.model.without_decoder(), checkpoint.read("encoder"), {})
    step = checkpoint.info.step
    about = f"{run.recipe_name}, step {step:,}"
    pretraining = run if isinstance(run.job, Pretrain) else None
    return Found(weights, about, "unmask", pretraining, step, damaged)
