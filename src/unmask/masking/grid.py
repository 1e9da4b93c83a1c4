"""Regular masking (MAE table 1f, "grid"): keep one patch of every square of patches."""

from dataclasses import dataclass

import torch

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masks import PatchMask


@dataclass(frozen=True, kw_only=True)
class GridMasking:
    """Keep the upper left patch of every square. Easy to fill in: sharp pictures, weaker features."""

    stride: int = 2
    """Side of the squares in patches; 2 hides 75 % (49 of 196 stay, 64 of 256)."""

    def __post_init__(self) -> None:
        if self.stride < 2:
            raise SettingsError(f"stride must be at least 2, got {self.stride}; MAE uses 2 (75 %)")

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """The same mask for every image; only the order of its indices is drawn."""
        removed = torch.ones(grid, dtype=torch.bool, device=generator.device)
        removed[:: self.stride, :: self.stride] = False
        return PatchMask.of(removed.flatten().expand(batch, -1), generator)
