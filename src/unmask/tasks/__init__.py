"""Supervised tasks for an encoder, and classifiers on frozen features."""

from typing import Annotated

from unmask.annotations import AnyAnnotations, MultiLabels, Unlabelled
from unmask.errors import DataError
from unmask.spec import Kind, kind_of
from unmask.tasks.classify import Classify
from unmask.tasks.heads import AnyHead
from unmask.tasks.multilabel import MultiLabel

AnyTask = Annotated[Classify, Kind("classify")] | Annotated[MultiLabel, Kind("multi-label")]

__all__ = ["AnyHead", "AnyTask", "Classify", "MultiLabel", "task_for"]


def task_for(task: AnyTask, annotations: AnyAnnotations) -> AnyTask:
    """The task, or the one for these annotations with the same head and the same trained blocks.

    Raises:
        DataError: if there is no task for these annotations.
    """
    if isinstance(annotations, task.needs | Unlabelled):
        return task
    if isinstance(annotations, MultiLabels):
        return MultiLabel(
            head=task.head,
            trained_blocks=task.trained_blocks,
            drop_path=task.drop_path,
            weight_average=task.weight_average,
        )
    raise DataError(
        f"there is no task for annotations of kind {kind_of(AnyAnnotations, annotations)!r} yet; "
        "use class folders or a --labels-file"
    )
