"""Masking on coarser squares: whole squares of patches are hidden or kept (Pixio, CVPR 2026).

A single hidden patch can be filled in from its neighbours; a square of four cannot, and the features get
better for it. Squares of 2 x 2 and 4 x 4 patches are what helped; 8 x 8 were too large.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Int
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking.block import BlockMasking
from unmask.masking.grid import GridMasking
from unmask.masking.inverse_block import InverseBlockMasking
from unmask.masking.partition import PartitionMasking
from unmask.masking.random import RandomMasking
from unmask.masks import PatchMask
from unmask.spec import Kind

AnyPlainMasking = (
    Annotated[RandomMasking, Kind("random")]
    | Annotated[BlockMasking, Kind("block")]
    | Annotated[GridMasking, Kind("grid")]
    | Annotated[InverseBlockMasking, Kind("inverse-block")]
    | Annotated[PartitionMasking, Kind("partition")]
)
"""The maskings that hide single patches."""


@dataclass(frozen=True, kw_only=True)
class SquareMasking:
    """Draw another masking on a grid of squares, each of several patches."""

    masking: AnyPlainMasking = RandomMasking()
    """Which squares to hide."""

    side: int = 2
    """Side of a square in patches; must divide both sides of the grid."""

    def __post_init__(self) -> None:
        if self.side < 2:
            raise SettingsError(
                f"side must be at least 2 patches, got {self.side}; Pixio uses 2 or 4, and single patches need "
                "no squares"
            )

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Patches of a square stand together in the order of indices, which is else the masking's own.

        So where not all hidden patches are rebuilt, whole squares are (but for one).
        """
        check_squares(grid, self.side)
        coarse = Size(grid.height // self.side, grid.width // self.side)
        mask = self.masking.sample(batch, coarse, generator)
        members = self._members(coarse, mask.image.device)
        order = members[torch.cat([mask.kept_index, mask.removed_index], dim=1)].flatten(1)
        return PatchMask.in_order(mask.image, order, mask.kept_index.shape[1] * self.side**2)

    def _members(self, coarse: Size, device: torch.device) -> Int[Tensor, "squares patches"]:
        """The patches of each square, row by row."""
        count = coarse.height * coarse.width * self.side**2
        numbers = torch.arange(count, device=device).reshape(
            coarse.height, self.side, coarse.width, self.side
        )
        return numbers.transpose(1, 2).reshape(coarse.height * coarse.width, self.side**2)


def side_of(masking: object) -> int:
    """Side, in patches, of the smallest square that a masking hides; 1 but for `SquareMasking`."""
    return masking.side if isinstance(masking, SquareMasking) else 1


def check_squares(grid: Size, side: int, patch_size: int | None = None) -> None:
    """Refuse a grid of patches that squares do not fill; with the patch's size the image that fits is named.

    Raises:
        SettingsError: naming the nearest size.
    """
    if grid.height % side == 0 and grid.width % side == 0:
        return
    near = Size(*(max(1, round(patches / side)) * side for patches in grid))
    fits = f"a grid of {near.height} x {near.width} would do"
    if patch_size is not None:
        pixels = Size(near.height * patch_size, near.width * patch_size)
        fits = f"the nearest image that they fill has {pixels.height} x {pixels.width} pixels (--image-size {pixels})"
    raise SettingsError(
        f"squares of {side} x {side} patches do not fill a grid of {grid.height} x {grid.width} patches; {fits}"
    )
