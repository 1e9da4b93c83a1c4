"""Pixels as targets, with and without per-patch normalisation (MAE section 3 and table 1d)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.masks import PatchMask
from unmask.patches import gather, normalize, patchify

Levels = Literal["neighbors", "true"]
"""Source of a hidden patch's mean and standard deviation in pictures, if the model does not predict them."""

Error = Callable[[Tensor, Tensor], Tensor]
"""The error of each patch [m r], from prediction and target [m r p]."""

_EPSILON = 1e-6  # as in MAE's published code
_NEIGHBORS = 8
_FAR = 2**62  # beyond all squared distances times the number of patches


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The pixels of the hidden patches, normalised per channel as the encoder's input is. Best for pictures."""

    def build(self, patch_size: int, channels: int) -> "PixelTarget":
        """The target for patches of this size."""
        return PixelTarget(patch_size, channels, squared_error, per_patch=False)


@dataclass(frozen=True, kw_only=True)
class AbsolutePixels:
    """As `Pixels`, with the mean absolute error as the loss: SimMIM (Xie and others, CVPR 2022, section 3.3)."""

    def build(self, patch_size: int, channels: int) -> "PixelTarget":
        """The target for patches of this size."""
        return PixelTarget(patch_size, channels, absolute_error, per_patch=False)


@dataclass(frozen=True, kw_only=True)
class NormalizedPixels:
    """Pixels normalised by the mean and standard deviation of each patch. Best for features."""

    def build(self, patch_size: int, channels: int) -> "PixelTarget":
        """The target for patches of this size."""
        return PixelTarget(patch_size, channels, squared_error, per_patch=True)


def squared_error(
    prediction: Float[Tensor, "m r p"], target: Float[Tensor, "m r p"]
) -> Float[Tensor, "m r"]:
    """Mean squared error of each patch over its known values; 0 if no value is known.

    In float32 whatever the precision of the run. A NaN in the prediction gives a NaN error, so divergence is noticed.
    """
    known = ~target.isnan()
    difference = (prediction.float() - target.where(known, 0.0)) * known
    return difference.square().sum(-1) / known.sum(-1).clamp(min=1)


def absolute_error(
    prediction: Float[Tensor, "m r p"], target: Float[Tensor, "m r p"]
) -> Float[Tensor, "m r"]:
    """Mean absolute error of each patch; otherwise as `squared_error`."""
    known = ~target.isnan()
    difference = (prediction.float() - target.where(known, 0.0)) * known
    return difference.abs().sum(-1) / known.sum(-1).clamp(min=1)


def var_mean(
    patches: Float[Tensor, "*b p"], images: Tensor
) -> tuple[Float[Tensor, "*b 1"], Float[Tensor, "*b 1"]]:
    """Unbiased variance and mean of each patch; over its known values if the images are floating point."""
    if not images.is_floating_point():
        return torch.var_mean(patches, dim=-1, keepdim=True)
    known = ~patches.isnan()
    count = known.sum(-1, keepdim=True)
    mean = patches.nansum(-1, keepdim=True) / count.clamp(min=1)
    centered = torch.where(known, patches - mean, 0.0)
    return centered.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1), mean


def normalized(patches: Float[Tensor, "*b p"], images: Tensor) -> Float[Tensor, "*b p"]:
    """Each patch with mean 0 and unbiased variance 1; over its known values if the images are floating point."""
    variance, mean = var_mean(patches, images)
    return (patches - mean) * torch.rsqrt(variance + _EPSILON)


class PixelTarget(nn.Module):
    """See `Pixels`, `AbsolutePixels` and `NormalizedPixels`."""

    gives_levels = True

    def __init__(self, patch_size: int, channels: int, error: Error, *, per_patch: bool) -> None:
        """`per_patch`: each patch has mean 0 and unbiased variance 1 over all its known values."""
        super().__init__()
        self.patch_size, self.loss, self.per_patch = patch_size, error, per_patch
        self.out_dim = patch_size**2 * channels

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r p"]:
        """The hidden patches, normalised per channel and then, if asked, each by itself."""
        patches = gather(images, mask.image, mask.removed_index, self.patch_size, statistics)
        return normalized(patches, images) if self.per_patch else patches

    def pixels(
        self,
        prediction: Float[Tensor, "m n p"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The prediction, with a mean and standard deviation for each patch where the model does not predict them."""
        if not self.per_patch:
            return prediction
        return with_levels(prediction, images, mask, self.patch_size, statistics, levels)


def with_levels(
    patches: Float[Tensor, "m n p"],
    images: Tensor,
    mask: PatchMask,
    patch_size: int,
    statistics: Statistics,
    levels: Levels,
) -> Float[Tensor, "m n p"]:
    """Scale and shift normalised patches to a mean and standard deviation.

    Visible patches get their own. Hidden patches get those of the eight nearest visible patches, weighted by the inverse
    distance, with "neighbors", which reads no hidden pixel; or their own with "true".
    """
    true = normalize(patchify(images, patch_size)[mask.image], statistics)
    variance, mean = (moment.squeeze(-1) for moment in var_mean(true, images))  # [m n]
    std = torch.sqrt(variance + _EPSILON)
    if levels == "neighbors":
        columns = images.shape[-1] // patch_size
        grid = Size(mask.removed.shape[1] // columns, columns)
        mean = _from_neighbors(mean, mask, grid)
        std = _from_neighbors(std, mask, grid)
    return patches * std[..., None] + mean[..., None]


def _from_neighbors(
    values: Float[Tensor, "m n"], mask: PatchMask, grid: Size
) -> Float[Tensor, "m n"]:
    """Replace the value of each hidden patch by the mean over the nearest visible ones, weighted by 1 / distance.

    Of equally distant patches those that come first in the image count, so the result does not depend on the order of the
    indices, and other implementations can reach the same.
    """
    sides = (torch.arange(side, device=values.device) for side in grid)
    places = torch.cartesian_prod(*sides)  # [n 2]
    offsets = places[mask.removed_index][:, :, None] - places[mask.kept_index][:, None]
    squared = offsets.square().sum(-1)  # [m r k], whole numbers
    order = squared * (grid.height * grid.width) + mask.kept_index[:, None]  # no two are equal
    # eight more patches, infinitely far away, so that fewer visible ones need no other code
    order = F.pad(order, (0, _NEIGHBORS), value=_FAR)
    closeness = F.pad(1 / squared.to(values.dtype).sqrt(), (0, _NEIGHBORS))
    visible = F.pad(values.gather(1, mask.kept_index), (0, _NEIGHBORS))  # [m k+8]
    index = order.topk(_NEIGHBORS, largest=False).indices  # [m r 8]
    weights = closeness.gather(2, index)
    neighbors = visible.gather(1, index.flatten(1)).reshape(index.shape)
    mean = (neighbors * weights).sum(-1) / weights.sum(-1)
    return values.scatter(1, mask.removed_index, mean)
