"""What to hide, drawn on the encoder's mask grid."""

from typing import Annotated

from unmask.masking.block import BlockMasking
from unmask.masking.grid import GridMasking
from unmask.masking.random import RandomMasking
from unmask.spec import Kind

AnyMasking = (
    Annotated[RandomMasking, Kind("random")]
    | Annotated[BlockMasking, Kind("block")]
    | Annotated[GridMasking, Kind("grid")]
)

__all__ = ["AnyMasking", "BlockMasking", "GridMasking", "RandomMasking"]
