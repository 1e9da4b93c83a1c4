"""Uniform random masking (MAE section 3, "Masking")."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masks import PatchMask, check_count


@dataclass(frozen=True, kw_only=True)
class RandomMasking:
    """Hide patches at random, without replacement, the same number in every image."""

    ratio: float = 0.75
    """Share of patches to hide, above 0 and below 1. MAE uses 0.75 (Figure 5)."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Keep the patches with the smallest noise: int(n (1 - ratio)) of n, as published."""
        patches = grid.height * grid.width
        noise = torch.rand(batch, patches, generator=generator, device=generator.device)
        return mask_from_noise(noise, self.ratio)


def check_ratio(ratio: float) -> None:
    """Raises SettingsError unless the ratio lies strictly between 0 and 1."""
    if not 0 < ratio < 1:
        raise SettingsError(f"ratio must lie between 0 and 1, got {ratio}; MAE uses 0.75")


def count_kept(patches: int, ratio: float) -> int:
    """How many patches stay, rounded down as published (39 of 196 at a ratio of 0.8).

    Raises:
        SettingsError: if that keeps or hides nothing.
    """
    kept = int(patches * (1 - ratio))
    check_count(kept, patches)
    return kept


def mask_from_noise(noise: Float[Tensor, "m n"], ratio: float) -> PatchMask:
    """The mask that keeps the smallest entries of each row, in rising order."""
    kept = count_kept(noise.shape[1], ratio)
    image = torch.arange(len(noise), device=noise.device)
    return PatchMask.in_order(image, noise.argsort(dim=1), kept)
