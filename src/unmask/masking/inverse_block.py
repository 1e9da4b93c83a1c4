"""Inverse block masking: visible squares on a hidden image (data2vec 2.0; Baevski and others, 2023)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking.random import check_ratio, count_kept
from unmask.masks import PatchMask


@dataclass(frozen=True, kw_only=True)
class InverseBlockMasking:
    """Hide everything, then show squares of patches at random places, trimmed or filled to an exact count.

    What is seen hangs together, so that its content can be understood. The numbers are those of the
    authors' configuration for images.
    """

    ratio: float = 0.8
    """Share of patches to hide, above 0 and below 1."""

    adjust: float = 0.07
    """How much more than the visible share the squares would cover, did they not overlap."""

    side: int = 3
    """Side of a square in patches."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0 <= self.adjust < 1:
            raise SettingsError(f"adjust must lie in [0, 1), got {self.adjust}; data2vec uses 0.07")
        if self.side < 1:
            raise SettingsError(f"side must be at least 1 patch, got {self.side}; data2vec uses 3")

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Draw squares, then take away or add patches at random where they show too many or too few.

        There is at least one square; parts that lie outside the image are lost.
        """
        patches = grid.height * grid.width
        kept = count_kept(patches, self.ratio)
        shown = self._squares(batch, grid, generator)
        noise = torch.rand(batch, patches, generator=generator, device=generator.device)
        order = (noise - shown.float()).argsort(dim=1)  # noise is below 1: squares come first
        removed = torch.ones_like(shown).scatter_(1, order[:, :kept], False)
        return PatchMask.of(removed, generator)

    def _squares(
        self, batch: int, grid: Size, generator: torch.Generator
    ) -> Bool[Tensor, "batch n"]:
        """Which patches lie in a square; centres may fall together."""
        patches = grid.height * grid.width
        count = max(1, int(patches * (1 - self.ratio + self.adjust) / self.side**2))
        centers = torch.randint(
            patches, (batch, count), generator=generator, device=generator.device
        )
        spots = torch.zeros(batch, patches, device=generator.device).scatter_(1, centers, 1.0)
        after = self.side // 2  # of an even square the centre is the first patch of its second half
        before = self.side - 1 - after
        spots = F.pad(spots.view(batch, 1, *grid), (before, after, before, after))
        return F.max_pool2d(spots, self.side, stride=1).flatten(1) > 0
