"""Inverse block masking: visible squares in a hidden image (data2vec 2.0; Baevski and others, 2023)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.masking.random import count_kept
from unmask.masks import PatchMask
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class InverseBlockMasking:
    """Hide all patches, then show squares at random positions, trimmed or filled up to an exact number of patches.

    The visible patches are contiguous, so the model can understand what they show. The default values are those of the
    authors' configuration for images.
    """

    ratio: float = 0.8
    """Share of patches to hide, between 0 and 1."""

    adjust: float = 0.07
    """Share of the image that the squares cover, if they do not overlap, in addition to the visible share."""

    side: int = 3
    """Side of a square in patches."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="data2vec uses 0.8")
        within(self, "[0, 1)", "adjust", usual="data2vec uses 0.07")
        within(self, "[1, inf)", "side", usual="data2vec uses 3")

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Draw squares, then remove or add random patches until exactly the visible share is left.

        There is at least one square. A square at the edge is cut off.
        """
        patches = grid.height * grid.width
        kept = count_kept(patches, self.ratio)
        in_square = self._squares(batch, grid, generator)
        noise = torch.rand(batch, patches, generator=generator, device=generator.device)
        order = (noise - in_square.float()).argsort(dim=1)  # noise is below 1: squares come first
        removed = torch.ones_like(in_square).scatter_(1, order[:, :kept], False)
        return PatchMask.of(removed, generator)

    def _squares(
        self, batch: int, grid: Size, generator: torch.Generator
    ) -> Bool[Tensor, "batch n"]:
        """Which patches are in a square; centres may coincide."""
        patches = grid.height * grid.width
        count = max(1, int(patches * (1 - self.ratio + self.adjust) / self.side**2))
        centers = torch.randint(
            patches, (batch, count), generator=generator, device=generator.device
        )
        is_center = torch.zeros(batch, patches, device=generator.device).scatter_(1, centers, 1.0)
        after = self.side // 2  # the centre of an even side is the first patch of its second half
        before = self.side - 1 - after
        is_center = F.pad(is_center.view(batch, 1, *grid), (before, after, before, after))
        return F.max_pool2d(is_center, self.side, stride=1).flatten(1) > 0
