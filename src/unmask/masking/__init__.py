"""Masking strategies: which patches to hide, drawn on the encoder's mask grid."""

from typing import Annotated

from unmask.masking.block import BlockMasking
from unmask.masking.draw import count_visible, draw_masks
from unmask.masking.grid import GridMasking
from unmask.masking.inverse_block import InverseBlockMasking
from unmask.masking.noise import NoiseMasking
from unmask.masking.partition import PartitionMasking
from unmask.masking.random import RandomMasking
from unmask.masking.squares import AnyPlainMasking, SquareMasking
from unmask.spec import Kind

AnyMasking = AnyPlainMasking | Annotated[SquareMasking, Kind("squares")]

__all__ = [
    "AnyMasking",
    "BlockMasking",
    "GridMasking",
    "InverseBlockMasking",
    "NoiseMasking",
    "PartitionMasking",
    "RandomMasking",
    "SquareMasking",
    "count_visible",
    "draw_masks",
]
