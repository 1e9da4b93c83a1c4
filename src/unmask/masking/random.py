"""Uniform random masking (MAE section 3, "Masking")."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.contracts import Size
from unmask.masks import PatchMask, check_count
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class RandomMasking:
    """Hide patches at random, without replacement, the same number in every image."""

    ratio: float = 0.75
    """Share of patches to hide, between 0 and 1. MAE uses 0.75 (figure 5)."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="MAE uses 0.75")

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Keep the int(n (1 - ratio)) of n patches with the smallest noise, as published."""
        patches = grid.height * grid.width
        noise = torch.rand(batch, patches, generator=generator, device=generator.device)
        return mask_from_noise(noise, self.ratio)


def count_kept(patches: int, ratio: float) -> int:
    """How many patches stay visible, rounded down as published (39 of 196 at 0.8); SettingsError if none or all do."""
    kept = int(patches * (1 - ratio))
    check_count(kept, patches)
    return kept


def mask_from_noise(noise: Float[Tensor, "m n"], ratio: float) -> PatchMask:
    """The mask that keeps the smallest entries of each row, in ascending order."""
    kept = count_kept(noise.shape[1], ratio)
    image = torch.arange(len(noise), device=noise.device)
    return PatchMask.in_order(image, noise.argsort(dim=1), kept)
