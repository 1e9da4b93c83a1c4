"""Encoders: from images, or only their visible patches, to tokens."""

from typing import Annotated

from unmask.encoders.vit import ViT
from unmask.spec import Kind

AnyEncoder = Annotated[ViT, Kind("vit")]

__all__ = ["AnyEncoder", "ViT"]
