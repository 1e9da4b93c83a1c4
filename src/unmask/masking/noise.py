"""Masks from filtered noise (ColorMAE: Hinojosa, Liu and Ghanem, ECCV 2024, section 3, green noise)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking.random import count_kept
from unmask.masks import PatchMask
from unmask.spec import within

_REACH = 3  # standard deviations of a Gaussian that its kernel covers


@dataclass(frozen=True, kw_only=True)
class NoiseMasking:
    """Hide the patches where noise without its lowest and highest frequencies is largest: irregular spots of a similar size.

    They lie between single random patches and blocks. ColorMAE's authors report 2.7 points of mIoU on ADE20K more than with
    random masks, at no cost. They cut masks out of noise that was filtered before; here it is drawn for each image.
    """

    ratio: float = 0.75
    """Share of patches to hide, between 0 and 1 (ColorMAE section 4)."""

    fine: float = 1.0
    """Standard deviation, in patches, of the Gaussian that removes frequencies above the spots. Ours."""

    coarse: float = 2.0
    """Standard deviation, in patches, of the Gaussian that is subtracted: frequencies below the spots. Ours."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="ColorMAE uses 0.75")
        within(self, "(0, 16]", "fine", "coarse")
        if self.fine >= self.coarse:
            raise SettingsError(
                f"fine must be below coarse, got {self.fine:g} and {self.coarse:g}; 1 and 2 give spots of a few patches"
            )

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Hide the largest values of each image's noise; the order of the indices is random."""
        reach = math.ceil(_REACH * self.coarse)
        shape = (batch, 1, grid.height + 2 * reach, grid.width + 2 * reach)
        white = torch.randn(shape, generator=generator, device=generator.device)
        spots = blurred(white, self.fine, reach) - blurred(white, self.coarse, reach)
        order = spots.flatten(1).argsort(dim=1)
        hidden = order[:, count_kept(order.shape[1], self.ratio) :]
        removed = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
        return PatchMask.of(removed.scatter_(1, hidden, True), generator)


def blurred(
    noise: Float[Tensor, "m 1 tall wide"], deviation: float, reach: int
) -> Float[Tensor, "m 1 h w"]:
    """The noise after a Gaussian with this deviation, without a margin of `reach` on each side."""
    offsets = torch.arange(-reach, reach + 1, device=noise.device, dtype=noise.dtype)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    return F.conv2d(F.conv2d(noise, kernel[None, None, :, None]), kernel[None, None, None])
