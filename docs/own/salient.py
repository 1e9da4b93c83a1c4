"""A masking that looks at pixels: hide the patches with the most detail, and leave the flat ones visible."""

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.contracts import Size
from unmask.masking.random import RandomMasking, mask_from_noise
from unmask.masks import PatchMask
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class SalientMasking:
    """Hide the patches whose pixels vary most, so that little can be guessed from smooth surroundings."""

    ratio: float = 0.75
    """Share of patches to hide, between 0 and 1."""

    chance: float = 0.1
    """Standard deviation of what is added to a patch's rank (0 to 1), so that masks differ from epoch to epoch."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="MAE uses 0.75")
        within(self, "[0, inf)", "chance")

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Masks without images: random ones that keep as many patches, for the plan that is printed."""
        return RandomMasking(ratio=self.ratio).sample(batch, grid, generator)

    def sample_of(
        self, images: Shaped[Tensor, "b c h w"], grid: Size, generator: torch.Generator
    ) -> PatchMask:
        """Masks of these images; `masking.draw_masks` calls this, one image at a time, with a seed for each."""
        values = images.float().nan_to_num()  # NaN says that a pixel is missing
        tiles = values.unflatten(3, (grid.width, -1)).unflatten(2, (grid.height, -1))
        detail = tiles.std(dim=(1, 3, 5), correction=0).flatten(1)  # [b c gh ph gw pw] -> [b n]
        rank = detail.argsort(dim=1).argsort(dim=1) / detail.shape[1]
        noise = torch.randn(rank.shape, generator=generator, device=generator.device)
        return mask_from_noise(rank.to(noise) + self.chance * noise, self.ratio)
