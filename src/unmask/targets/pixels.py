"""Pixels as targets: as they are, or normalised within each patch (MAE section 3 and table 1d)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.masks import PatchMask
from unmask.patches import gather, normalize, patchify

Levels = Literal["neighbors", "true"]
"""Where a picture takes the mean and deviation of a hidden patch from, if the model does not predict them."""

_EPSILON = 1e-6
_NEIGHBORS = 8


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The pixels of the hidden patches, normalised as the encoder's input is. Best for pictures."""

    def build(self, patch_size: int, channels: int) -> "PixelTarget":
        """The target for patches of this size."""
        return PixelTarget(patch_size, channels, squared_error)


@dataclass(frozen=True, kw_only=True)
class AbsolutePixels:
    """As `Pixels`, scored by the mean absolute error: SimMIM (Xie and others, CVPR 2022, section 3.3)."""

    def build(self, patch_size: int, channels: int) -> "PixelTarget":
        """The target for patches of this size."""
        return PixelTarget(patch_size, channels, absolute_error)


@dataclass(frozen=True, kw_only=True)
class NormalizedPixels:
    """Each hidden patch with its own mean taken off and divided by its own deviation. Best for features."""

    def build(self, patch_size: int, channels: int) -> "NormalizedPixelTarget":
        """The target for patches of this size."""
        return NormalizedPixelTarget(patch_size, channels)


def squared_error(
    prediction: Float[Tensor, "m r p"], target: Float[Tensor, "m r p"]
) -> Float[Tensor, "m r"]:
    """Mean squared error of each patch over its known values; 0 where none is known.

    In float32 whatever the precision of the network. A guess that is not a number stays one.
    """
    known = ~target.isnan()
    off = (prediction.float() - target.where(known, 0.0)) * known
    return off.square().sum(-1) / known.sum(-1).clamp(min=1)


def absolute_error(
    prediction: Float[Tensor, "m r p"], target: Float[Tensor, "m r p"]
) -> Float[Tensor, "m r"]:
    """As `squared_error`, of absolute values."""
    known = ~target.isnan()
    off = (prediction.float() - target.where(known, 0.0)) * known
    return off.abs().sum(-1) / known.sum(-1).clamp(min=1)


def var_mean(
    patches: Float[Tensor, "*b p"], images: Tensor
) -> tuple[Float[Tensor, "*b 1"], Float[Tensor, "*b 1"]]:
    """Unbiased variance and mean of each patch; over its known values if images are of floating point."""
    if not images.is_floating_point():
        return torch.var_mean(patches, dim=-1, keepdim=True)
    known = ~patches.isnan()
    count = known.sum(-1, keepdim=True)
    mean = patches.nansum(-1, keepdim=True) / count.clamp(min=1)
    apart = torch.where(known, patches - mean, 0.0)
    return apart.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1), mean


def normalized(patches: Float[Tensor, "*b p"], images: Tensor) -> Float[Tensor, "*b p"]:
    """Each patch with mean 0 and unbiased variance 1, over its known values if images are of floating point."""
    variance, mean = var_mean(patches, images)
    return (patches - mean) * torch.rsqrt(variance + _EPSILON)


class PixelTarget(nn.Module):
    """See `Pixels` and `AbsolutePixels`."""

    gives_levels = True

    def __init__(
        self, patch_size: int, channels: int, error: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.patch_size, self.error = patch_size, error
        self.out_dim = patch_size**2 * channels

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r p"]:
        """The hidden patches, normalised per channel."""
        return gather(images, mask.image, mask.removed_index, self.patch_size, statistics)

    def loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, "m r"]:
        """Mean error of each patch, squared or absolute."""
        return self.error(prediction, target)

    def pixels(
        self,
        prediction: Float[Tensor, "m n p"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The prediction as it is: it already has its levels."""
        return prediction


class NormalizedPixelTarget(nn.Module):
    """See `NormalizedPixels`."""

    gives_levels = True

    def __init__(self, patch_size: int, channels: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.out_dim = patch_size**2 * channels

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r p"]:
        """Hidden patches, each with mean 0 and (unbiased) variance 1 over all its known values."""
        patches = gather(images, mask.image, mask.removed_index, self.patch_size, statistics)
        return normalized(patches, images)

    def loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, "m r"]:
        """Mean squared error of each patch."""
        return squared_error(prediction, target)

    def pixels(
        self,
        prediction: Float[Tensor, "m n p"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """Give each predicted patch a mean and a deviation, which the model does not predict."""
        return with_levels(prediction, images, mask, self.patch_size, statistics, levels)


def with_levels(
    patches: Float[Tensor, "m n p"],
    images: Tensor,
    mask: PatchMask,
    patch_size: int,
    statistics: Statistics,
    levels: Levels,
) -> Float[Tensor, "m n p"]:
    """Normalised patches with a mean and a deviation each.

    Visible patches have their own. For hidden ones "neighbors" takes the eight nearest visible
    patches, weighted by one over the distance, and reads no hidden pixel; "true" reads the
    hidden patch itself.
    """
    true = normalize(patchify(images, patch_size)[mask.image], statistics)
    variance, mean = (each.squeeze(-1) for each in var_mean(true, images))  # [m n]
    deviation = torch.sqrt(variance + _EPSILON)
    if levels == "neighbors":
        columns = images.shape[-1] // patch_size
        grid = Size(mask.removed.shape[1] // columns, columns)
        mean = _from_neighbors(mean, mask, grid)
        deviation = _from_neighbors(deviation, mask, grid)
    return patches * deviation[..., None] + mean[..., None]


def _from_neighbors(
    values: Float[Tensor, "m n"], mask: PatchMask, grid: Size
) -> Float[Tensor, "m n"]:
    """Replace each hidden patch's value by that of its nearest visible ones, weighted by 1 / distance."""
    rows, columns = torch.meshgrid(
        torch.arange(grid.height, device=values.device),
        torch.arange(grid.width, device=values.device),
        indexing="ij",
    )
    places = torch.stack([rows.flatten(), columns.flatten()], 1).float()  # [n 2]
    distance = torch.cdist(places[mask.removed_index], places[mask.kept_index])  # [m r k]
    nearest, which = distance.topk(min(_NEIGHBORS, distance.shape[-1]), largest=False)
    weights = (1 / nearest) / (1 / nearest).sum(-1, keepdim=True)  # [m r 8]
    visible = values.gather(1, mask.kept_index)  # [m k]
    chosen = visible.gather(1, which.flatten(1)).reshape(which.shape)
    return values.scatter(1, mask.removed_index, (chosen * weights).sum(-1))
