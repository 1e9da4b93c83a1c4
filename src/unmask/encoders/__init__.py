"""Images to tokens; an encoder may be shown only a part of them."""

from typing import Annotated

from unmask.encoders.vit import ViT
from unmask.spec import Kind

AnyEncoder = Annotated[ViT, Kind("vit")]

__all__ = ["AnyEncoder", "ViT"]
