"""Pretraining: an encoder and what makes it learn."""

from typing import Annotated

from unmask.objectives.dino import DINO, SelfDistillation
from unmask.objectives.mae import MAE, MaskedAutoencoder
from unmask.spec import Kind

AnyObjective = Annotated[MAE, Kind("mae")] | Annotated[DINO, Kind("dino")]

AnyPretraining = MaskedAutoencoder | SelfDistillation
"""The modules that these specs build."""

__all__ = ["DINO", "MAE", "AnyObjective", "AnyPretraining"]
