"""Pretraining objectives: what an encoder is trained to do."""

from typing import Annotated

from unmask.objectives.aim import AIM, AutoregressiveImageModel
from unmask.objectives.dino import DINO, SelfDistillation
from unmask.objectives.latent import Latent, LatentPrediction
from unmask.objectives.mae import MAE, MaskedAutoencoder
from unmask.objectives.moco3 import MoCo3, MomentumContrast
from unmask.spec import Kind

AnyObjective = (
    Annotated[MAE, Kind("mae")]
    | Annotated[DINO, Kind("dino")]
    | Annotated[MoCo3, Kind("moco3")]
    | Annotated[AIM, Kind("aim")]
    | Annotated[Latent, Kind("latent")]
)

AnyPretraining = (
    MaskedAutoencoder
    | SelfDistillation
    | MomentumContrast
    | AutoregressiveImageModel
    | LatentPrediction
)
"""The modules that these specs build."""

__all__ = ["AIM", "DINO", "MAE", "AnyObjective", "AnyPretraining", "Latent", "MoCo3"]
