"""Masking on a coarser grid: whole squares of patches are hidden or kept (Pixio, CVPR 2026).

A single hidden patch can be filled in from its neighbours. A square of 2 x 2 cannot, and features improve. Pixio's
authors found that squares of 2 x 2 and 4 x 4 patches help, and that 8 x 8 is too large.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking.block import BlockMasking
from unmask.masking.grid import GridMasking
from unmask.masking.inverse_block import InverseBlockMasking
from unmask.masking.noise import NoiseMasking
from unmask.masking.partition import PartitionMasking
from unmask.masking.random import RandomMasking
from unmask.masks import PatchMask
from unmask.spec import Kind, within

AnyPlainMasking = (
    Annotated[RandomMasking, Kind("random")]
    | Annotated[BlockMasking, Kind("block")]
    | Annotated[GridMasking, Kind("grid")]
    | Annotated[InverseBlockMasking, Kind("inverse-block")]
    | Annotated[PartitionMasking, Kind("partition")]
    | Annotated[NoiseMasking, Kind("noise")]
)
"""The maskings that hide single patches."""

_SINGLE = "Pixio uses 2 or 4; for single patches use the inner masking itself"


@dataclass(frozen=True, kw_only=True)
class SquareMasking:
    """Apply another masking to squares of several patches instead of single patches."""

    masking: AnyPlainMasking = RandomMasking()
    """Which squares to hide."""

    side: int = 2
    """Side of a square in patches; must divide both sides of the grid."""

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "side", usual=_SINGLE)

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """The indices keep the order of the inner masking, with the patches of a square next to each other.

        So an objective that rebuilds only the first hidden patches rebuilds whole squares, except for the last one.
        """
        check_squares(grid, self.side)
        coarse = Size(grid.height // self.side, grid.width // self.side)
        mask = self.masking.sample(batch, coarse, generator)
        numbers = torch.arange(grid.height * grid.width, device=mask.image.device)
        numbers = numbers.view(coarse.height, self.side, coarse.width, self.side).transpose(1, 2)
        patches_of = numbers.reshape(-1, self.side**2)  # [squares, patches of a square]
        order = patches_of[torch.cat([mask.kept_index, mask.removed_index], dim=1)].flatten(1)
        return PatchMask.in_order(mask.image, order, mask.kept_index.shape[1] * self.side**2)


def side_of(masking: object) -> int:
    """Side, in patches, of the squares that a masking hides; 1 for all maskings except `SquareMasking`."""
    return masking.side if isinstance(masking, SquareMasking) else 1


def check_squares(grid: Size, side: int, patch_size: int | None = None) -> None:
    """Raises SettingsError, with the nearest grid or (given `patch_size`) image size, for a grid that squares do not fill."""
    if grid.height % side == 0 and grid.width % side == 0:
        return
    near = Size(*(max(1, round(patches / side)) * side for patches in grid))
    remedy = f"the nearest grid that works is {near.height} x {near.width}"
    if patch_size is not None:
        pixels = Size(near.height * patch_size, near.width * patch_size)
        remedy = f"the nearest image size that works is {pixels.height} x {pixels.width} (--image-size {pixels})"
    raise SettingsError(
        f"squares of {side} x {side} patches do not fill a grid of {grid.height} x {grid.width} patches; {remedy}"
    )
