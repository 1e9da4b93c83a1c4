"""Pretraining: an encoder and what makes it learn."""

from typing import Annotated

from unmask.objectives.aim import AIM, AutoregressiveImageModel
from unmask.objectives.dino import DINO, SelfDistillation
from unmask.objectives.mae import MAE, MaskedAutoencoder
from unmask.spec import Kind

AnyObjective = (
    Annotated[MAE, Kind("mae")] | Annotated[DINO, Kind("dino")] | Annotated[AIM, Kind("aim")]
)

AnyPretraining = MaskedAutoencoder | SelfDistillation | AutoregressiveImageModel
"""The modules that these specs build."""

__all__ = ["AIM", "DINO", "MAE", "AnyObjective", "AnyPretraining"]
