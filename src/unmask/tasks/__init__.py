"""What an encoder is trained for with annotations, and scores of frozen features."""

from typing import Annotated

from unmask.spec import Kind
from unmask.tasks.classify import Classify
from unmask.tasks.heads import AnyHead
from unmask.tasks.multilabel import MultiLabel

AnyTask = Annotated[Classify, Kind("classify")] | Annotated[MultiLabel, Kind("multi-label")]

__all__ = ["AnyHead", "AnyTask", "Classify", "MultiLabel"]
