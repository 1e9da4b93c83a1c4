"""Grid masking (MAE table 1f): keep one patch of every square of patches."""

from dataclasses import dataclass

import torch

from unmask.contracts import Size
from unmask.masks import PatchMask
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class GridMasking:
    """Keep the top left patch of every square. An easy task: sharp pictures, but weaker features."""

    stride: int = 2
    """Side of the squares in patches; 2 hides 75 % (49 of 196 patches stay visible)."""

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "stride", usual="MAE uses 2 (75 %)")

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """The same mask for every image; only the order of its indices is random."""
        removed = torch.ones(grid, dtype=torch.bool, device=generator.device)
        removed[:: self.stride, :: self.stride] = False
        return PatchMask.of(removed.flatten().expand(batch, -1), generator)
