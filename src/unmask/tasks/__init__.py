"""What an encoder is good for: trained tasks and scores of frozen features."""

from typing import Annotated

from unmask.spec import Kind
from unmask.tasks.classify import Classify
from unmask.tasks.heads import AnyHead

AnyTask = Annotated[Classify, Kind("classify")]

__all__ = ["AnyHead", "AnyTask", "Classify"]
