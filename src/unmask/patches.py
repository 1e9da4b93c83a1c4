"""Images to patches and back.

A patch is a vector ordered as (row, column, channel), channels last, as in MAE's published weights.
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.errors import SettingsError


def patch_grid(size: Size, patch_size: int) -> Size:
    """The grid of patches of an image; SettingsError, with the nearest size that works, if they do not fill it."""
    if size.height % patch_size or size.width % patch_size:
        near = Size(*(max(1, round(side / patch_size)) * patch_size for side in size))
        raise SettingsError(
            f"an image of {size.height} x {size.width} pixels cannot be divided into patches of "
            f"{patch_size} x {patch_size}; the nearest size that works is {near.height} x {near.width} "
            f"(--image-size {near})"
        )
    return Size(size.height // patch_size, size.width // patch_size)


def size_of(images: Shaped[Tensor, "b c h w"]) -> Size:
    """Height and width of a batch of images."""
    return Size(images.shape[-2], images.shape[-1])


def patchify(images: Shaped[Tensor, "b c h w"], patch_size: int) -> Shaped[Tensor, "b n p"]:
    """Divide images into patches, row by row."""
    batch, channels = images.shape[:2]
    grid = patch_grid(size_of(images), patch_size)
    patches = images.reshape(batch, channels, grid.height, patch_size, grid.width, patch_size)
    # image, grid row, grid column, row, column, channel
    patches = patches.permute(0, 2, 4, 3, 5, 1)
    return patches.reshape(batch, grid.height * grid.width, patch_size**2 * channels)


def unpatchify(
    patches: Shaped[Tensor, "b n p"], patch_size: int, grid: Size
) -> Shaped[Tensor, "b c h w"]:
    """Assemble images from patches; the inverse of `patchify`."""
    batch = patches.shape[0]
    channels = patches.shape[-1] // patch_size**2
    images = patches.reshape(batch, grid.height, grid.width, patch_size, patch_size, channels)
    images = images.permute(0, 5, 1, 3, 2, 4)  # image, channel, grid row, row, grid column, column
    return images.reshape(batch, channels, grid.height * patch_size, grid.width * patch_size)


def gather(
    images: Shaped[Tensor, "b c h w"],
    image: Int[Tensor, " m"],
    index: Int[Tensor, "m k"],
    patch_size: int,
    statistics: Statistics,
) -> Float[Tensor, "m k p"]:
    """The patches at `index` of the images `image`, normalised; all other patches are only copied, as bytes."""
    patches = patchify(images, patch_size)
    rows = (image[:, None] * patches.shape[1] + index).flatten()
    selected = patches.flatten(0, 1).index_select(0, rows)
    return normalize(selected.unflatten(0, index.shape), statistics)


def normalize(patches: Shaped[Tensor, "*b p"], statistics: Statistics) -> Float[Tensor, "*b p"]:
    """Subtract the mean and divide by the standard deviation of each channel.

    uint8 values are divided by 255 first; floating point values are in the units of the statistics.
    """
    unit = 1 / 255 if patches.dtype == torch.uint8 else 1.0
    repeats = patches.shape[-1] // len(statistics.mean)
    scale = (unit / statistics.std).repeat(repeats)
    shift = (-statistics.mean / statistics.std).repeat(repeats)
    return torch.addcmul(shift, patches.to(shift.dtype), scale)


def filled(patches: Float[Tensor, "*b p"]) -> Float[Tensor, "*b p"]:
    """Normalised patches with 0, the mean of the channel, in place of missing values (NaN)."""
    return torch.where(patches.isnan(), 0.0, patches)


def denormalize(patches: Float[Tensor, "*b p"], statistics: Statistics) -> Float[Tensor, "*b p"]:
    """Undo `normalize`: pixel values from about 0 to 1, not clipped."""
    repeats = patches.shape[-1] // len(statistics.mean)
    return patches * statistics.std.repeat(repeats) + statistics.mean.repeat(repeats)


def pixels_of(chosen: Bool[Tensor, "m n"], patch_size: int, grid: Size) -> Bool[Tensor, "m h w"]:
    """Which pixels belong to the chosen patches."""
    cells = chosen.unflatten(1, tuple(grid))
    return cells.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)


def taken(patches: Shaped[Tensor, "m n p"], index: Int[Tensor, "m r"]) -> Shaped[Tensor, "m r p"]:
    """The patches at `index`, in its order."""
    return patches.gather(1, index[..., None].expand(-1, -1, patches.shape[-1]))


def put_back(
    patches: Float[Tensor, "m n p"],
    index: Int[Tensor, "m r"],
    values: Float[Tensor, "m r p"],
) -> Float[Tensor, "m n p"]:
    """A copy of the patches with new values at `index`."""
    return patches.scatter(1, index[..., None].expand_as(values), values)
