"""Weights by their path: of a run, or of a file in any layout that `formats` knows."""

from pathlib import Path
from typing import NamedTuple

from unmask.errors import RunError
from unmask.formats import Hints, read_named
from unmask.formats.model import Weights, split
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.checkpoint import Checkpoint
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
    """The run that made them."""
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
    if folder.is_transfer():
        return _of_transfer(folder)
    if folder.spec.exists():
        return _of_run(folder)
    if not folder.root.exists():
        raise RunError(
            f"{path} holds no run (no spec.json){folder.nearby()}; there is nothing at that path"
        )
    layout, weights = read_named(path, hints)
    return Found(weights, f"{path}", layout)


def _of_run(folder: RunFolder) -> Found:
    run = folder.read()
    found, damaged = newest_whole(folder)
    if isinstance(run.recipe.objective, Masked):
        weights = Weights(run.model, *split(found.read("model")))
    else:  # what else it trains is of no use without its teacher
        weights = Weights(run.model.without_decoder(), found.read("encoder"), {})
    about = f"{run.recipe_name}, step {found.info.step:,}"
    return Found(weights, about, "unmask", run, found.info.step, damaged)


def _of_transfer(folder: RunFolder) -> Found:
    """The encoder of a classifier: of the average, where weights are averaged."""
    run = folder.read_transfer()
    found, damaged = newest_whole(folder)
    weights = Weights(run.model, found.read("encoder"), {})
    about = f"{run.recipe_name}, step {found.info.step:,}"
    return Found(weights, about, "unmask", None, found.info.step, damaged)


def newest_whole(folder: RunFolder) -> tuple[Checkpoint, tuple[str, ...]]:
    """The newest whole checkpoint of a run, and a line for each damaged one passed over.

    Raises:
        RunError: if there is none.
    """
    found, damaged = folder.newest()
    if found is None:
        why = f"all are damaged ({damaged[0]})" if damaged else "none is written yet"
        raise RunError(f"{folder.root} has no checkpoint to load: {why}")
    return found, tuple(damaged)
