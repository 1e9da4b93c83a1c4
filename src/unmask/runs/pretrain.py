"""Pretraining: an objective trained on images, and watched for collapse; nothing learns from labels."""

from collections.abc import Iterator
from threading import Event

from unmask.contracts import ImageSource
from unmask.objectives import AnyPretraining
from unmask.runs.collapse import Watch
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.target import fit_target
from unmask.runs.training import Progress, training
from unmask.training.checkpoint import Checkpoint


def pretrain(
    run: Run,
    folder: RunFolder,
    source: ImageSource,
    objective: AnyPretraining,
    stop: Event,
    start: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Train an objective, from a checkpoint if one is given, until the end or until `stop` is set."""
    if start is None:
        fit_target(run, source, objective)
    watch = Watch(run, source, objective)
    return training(run, folder, source, objective, stop, start, watch=watch)
