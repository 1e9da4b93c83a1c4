"""Several masks of one image whose visible patches are disjoint.

Each decoded and cropped image trains the encoder several times, every time on other patches. data2vec 2.0 (Baevski and
others, 2023) uses many masks per image; EMAE (Li and others, 2023) and DMJD (Ma and others, 2022) make them disjoint.
"""

from dataclasses import dataclass

import torch

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking.random import count_kept
from unmask.masks import PatchMask
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class PartitionMasking:
    """Divide the patches of an image among several masks at random; each mask keeps as many as random masking."""

    masks: int = 4
    """Masks per image. A step then computes b x masks rows for b loaded images."""

    ratio: float = 0.75
    """Share of patches that each mask hides; with 4 masks, 0.75 shows every patch exactly once."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="MAE uses 0.75")
        within(self, "[2, inf)", "masks", usual="for one mask use objective.masking:random")
        if self.masks * (1 - self.ratio) > 1 + 1e-9:  # 1e-9: 1 - 0.9 is not exactly 0.1
            raise SettingsError(
                f"{self.masks} masks that each keep {1 - self.ratio:.3g} of an image cannot be disjoint; "
                f"use a ratio of at least {1 - 1 / self.masks:.4g}, or at most {int(1 / (1 - self.ratio) + 1e-9)} masks"
            )

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Rows are the masks of the first image, then those of the second, and so on."""
        patches = grid.height * grid.width
        kept = count_kept(patches, self.ratio)
        noise = torch.rand(batch, patches, generator=generator, device=generator.device)
        # one random order per image; each mask starts where the one before ends
        orders = [noise.argsort(dim=1).roll(-kept * number, 1) for number in range(self.masks)]
        order = torch.stack(orders, dim=1).flatten(0, 1)  # [b n] -> [b masks n] -> [m n]
        image = torch.arange(batch, device=order.device).repeat_interleave(self.masks)
        return PatchMask.in_order(image, order, kept)
