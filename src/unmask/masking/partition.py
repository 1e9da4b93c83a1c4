"""Several masks of one image that keep disjoint parts of it.

For one decoded and cropped image the encoder is trained several times, on patches that it has not seen yet:
data2vec 2.0 (Baevski and others, 2023) shares an image among many masks, EMAE (Li and others, 2023) and DMJD
(Ma and others, 2022) make them disjoint.
"""

from dataclasses import dataclass

import torch

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking.random import check_ratio, count_kept
from unmask.masks import PatchMask


@dataclass(frozen=True, kw_only=True)
class PartitionMasking:
    """Deal the patches of an image to several masks at random; each keeps its own, as many as random masking would."""

    masks: int = 4
    """Masks of each image. A batch of b images then costs what b x masks images do, but for loading."""

    ratio: float = 0.75
    """Share of patches that each mask hides; with 4 masks 0.75 shows every patch exactly once."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.masks < 2:
            raise SettingsError(
                f"masks must be at least 2, got {self.masks}; one mask an image is random masking "
                "(objective.masking:random)"
            )
        if self.masks * (1 - self.ratio) > 1 + 1e-9:
            raise SettingsError(
                f"{self.masks} masks that each keep {1 - self.ratio:.3g} of an image cannot be disjoint; "
                f"use a ratio of at least {1 - 1 / self.masks:.4g}, or at most {int(1 / (1 - self.ratio) + 1e-9)} masks"
            )

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Rows are the masks of the first image, then of the second, and so on."""
        patches = grid.height * grid.width
        kept = count_kept(patches, self.ratio)
        noise = torch.rand(batch, patches, generator=generator, device=generator.device)
        turns = [noise.argsort(dim=1).roll(-kept * number, 1) for number in range(self.masks)]
        order = torch.stack(turns, dim=1).flatten(0, 1)  # [b n] -> [b masks n] -> [m n]
        image = torch.arange(batch, device=order.device).repeat_interleave(self.masks)
        return PatchMask.in_order(image, order, kept)
