"""Pretraining: an encoder and what makes it learn."""

from typing import Annotated

from unmask.objectives.mae import MAE
from unmask.spec import Kind

AnyObjective = Annotated[MAE, Kind("mae")]

__all__ = ["MAE", "AnyObjective"]
