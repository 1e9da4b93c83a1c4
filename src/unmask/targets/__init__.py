"""What the hidden patches hold, and how wrong a guess is."""

from typing import Annotated

from unmask.spec import Kind
from unmask.targets.pixels import NormalizedPixels, Pixels

AnyTarget = (
    Annotated[Pixels, Kind("pixels")] | Annotated[NormalizedPixels, Kind("normalized-pixels")]
)

__all__ = ["AnyTarget", "NormalizedPixels", "Pixels"]
