"""Histograms of oriented gradients as the target (MaskFeat, Wei and others, CVPR 2022, section 3.2)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.channels import Statistics
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import patch_grid, size_of
from unmask.spec import sized
from unmask.targets.pixels import Levels, squared_error

_EPSILON = 1e-5  # keeps flat cells from a division by 0
_CELLS = 2  # per side of a patch: MaskFeat has cells of 8 in patches of 16 pixels


@dataclass(frozen=True, kw_only=True)
class Hog:
    """Histograms of gradient directions in the four quarters (cells) of each hidden patch.

    Each channel of a cell has its own histogram, normalised to length 1. The target keeps edges and discards brightness.
    """

    bins: int = 9
    """Number of directions between 0 and 180 degrees (MaskFeat section 3.2)."""

    def __post_init__(self) -> None:
        sized(self, "bins", usual="MaskFeat uses 9")

    def build(self, patch_size: int, channels: int) -> "GradientTarget":
        """The target for patches of this size, which must be even."""
        if patch_size % _CELLS:
            raise SettingsError(
                f"hog divides a patch into quarters, which a patch of {patch_size} pixels does not allow; use an even "
                "--encoder.patch-size"
            )
        return GradientTarget(patch_size, channels, self.bins)


class GradientTarget(nn.Module):
    """See `Hog`. The values of a patch are ordered as (cell row, cell column, channel, direction)."""

    gives_levels = False
    loss = staticmethod(squared_error)

    def __init__(self, patch_size: int, channels: int, bins: int) -> None:
        super().__init__()
        self.patch_size, self.channels, self.bins = patch_size, channels, bins
        self.out_dim = _CELLS**2 * channels * bins

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r p"]:
        """The histograms of the hidden patches; NaN if all values of a cell are missing.

        A gradient is the difference of the two neighbouring pixels, also across patches, and 0 at the image border.
        """
        values = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        histograms = self._histograms(values)  # [b c bins rows columns]
        grid = patch_grid(size_of(images), self.patch_size)
        cut = histograms.unflatten(4, (grid.width, _CELLS)).unflatten(3, (grid.height, _CELLS))
        patches = cut.permute(0, 3, 5, 4, 6, 1, 2).flatten(3).flatten(1, 2)  # [b n p]
        return patches[mask.image[:, None], mask.removed_index]

    def _histograms(
        self, values: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c bins rows columns"]:
        down, right = torch.zeros_like(values), torch.zeros_like(values)
        down[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
        right[..., 1:-1] = values[..., 2:] - values[..., :-2]
        magnitude = torch.hypot(down, right)
        known = ~magnitude.isnan()
        direction = torch.atan2(down, right).nan_to_num() / math.pi % 1  # 1 is 180 degrees
        number = (direction * self.bins).long().clamp(max=self.bins - 1)
        by_bin = torch.zeros(*values.shape[:2], self.bins, *values.shape[2:], device=values.device)
        by_bin.scatter_(2, number[:, :, None], magnitude.where(known, 0.0)[:, :, None])
        side = self.patch_size // _CELLS
        sums = nn.functional.avg_pool2d(by_bin.flatten(0, 1), side).unflatten(0, values.shape[:2])
        length = (sums.square().sum(2, keepdim=True) + _EPSILON**2).sqrt()
        any_known = nn.functional.max_pool2d(known.float(), side)[:, :, None] > 0
        return torch.where(any_known, sums / length, torch.nan)

    def pixels(
        self,
        prediction: Float[Tensor, "m n p"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n q"]:
        """A drawing of the histograms: for each direction a line along the edge, brighter for larger values.

        Black is two standard deviations below the mean of a channel, and white two above.
        """
        shape = (_CELLS, _CELLS, self.channels, self.bins)
        histograms = prediction.unflatten(-1, shape)
        lines = self._lines(prediction.device)  # [bins side side]
        drawn = torch.einsum("mnyxcd,dij->mnyixjc", histograms, lines).clamp(0, 1)
        return 4 * drawn.flatten(2) - 2

    def _lines(self, device: torch.device) -> Float[Tensor, "bins side side"]:
        """A line through the middle of a cell for each direction, at right angles to the gradient."""
        side = self.patch_size // _CELLS
        offsets = torch.arange(side, device=device) - (side - 1) / 2  # from the middle of the cell
        angle = math.pi * (torch.arange(self.bins, device=device) + 0.5) / self.bins
        down, right = (part[:, None, None] for part in (angle.sin(), angle.cos()))
        distance = down * offsets[:, None] + right * offsets  # pixels from the line
        return (1 - distance.abs()).clamp(min=0)
