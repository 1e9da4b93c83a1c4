"""Supervised tasks for an encoder, and classifiers on frozen features."""

from dataclasses import fields
from typing import Annotated, Any, get_type_hints

from unmask.annotations import AnyAnnotations, Unlabelled
from unmask.spec import Kind, kinds
from unmask.tasks.classify import Classify
from unmask.tasks.detect import Detect
from unmask.tasks.heads import AnyHead
from unmask.tasks.multilabel import MultiLabel
from unmask.tasks.segment import Segment
from unmask.tasks.segment_heads import AnyMapHead

AnyTask = (
    Annotated[Classify, Kind("classify")]
    | Annotated[MultiLabel, Kind("multi-label")]
    | Annotated[Segment, Kind("segment")]
    | Annotated[Detect, Kind("detect")]
)

__all__ = [
    "AnyHead",
    "AnyMapHead",
    "AnyTask",
    "Classify",
    "Detect",
    "MultiLabel",
    "Segment",
    "annotations_of_tasks",
    "task_for",
]


def annotations_of_tasks() -> tuple[type, ...]:
    """The kinds of annotations that some task learns from."""
    return tuple(task.needs for task in kinds(AnyTask).values())


def task_for(task: AnyTask, annotations: AnyAnnotations) -> AnyTask:
    """The task, or the one for these annotations, with the settings that both have (head, for one)."""
    if isinstance(annotations, task.needs | Unlabelled):
        return task
    tasks: Any = kinds(AnyTask).values()
    other = next(member for member in tasks if isinstance(annotations, member.needs))
    return other(**_shared(task, other))


def _shared(task: AnyTask, other: Any) -> dict[str, Any]:
    """The settings of a task that another has too: fields of the same name and type."""
    types, wanted = get_type_hints(type(task)), get_type_hints(other)
    return {
        field.name: getattr(task, field.name)
        for field in fields(task)
        if wanted.get(field.name) == types[field.name]
    }
