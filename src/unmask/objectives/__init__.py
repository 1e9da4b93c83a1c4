"""Pretraining objectives: what an encoder is trained to do."""

from typing import Annotated

from unmask.objectives.aim import AIM
from unmask.objectives.dino import DINO
from unmask.objectives.latent import Latent
from unmask.objectives.mae import MAE
from unmask.objectives.moco3 import MoCo3
from unmask.objectives.place import Place
from unmask.spec import Kind

AnyObjective = (
    Annotated[MAE, Kind("mae")]
    | Annotated[DINO, Kind("dino")]
    | Annotated[MoCo3, Kind("moco3")]
    | Annotated[AIM, Kind("aim")]
    | Annotated[Latent, Kind("latent")]
    | Annotated[Place, Kind("place")]
)

__all__ = ["AIM", "DINO", "MAE", "AnyObjective", "Latent", "MoCo3", "Place"]
