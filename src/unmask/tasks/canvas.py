"""Pictures of a batch on a canvas of one size, for tasks that say where in a picture something is."""

import math

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.patches import size_of


def sizes_of(
    images: Shaped[Tensor, "b c h w"], sizes: Int[Tensor, "b 2"] | None
) -> list[tuple[int, int]]:
    """Height and width of each picture of a batch; `sizes` as in `Batch`."""
    if sizes is None:
        return [(images.shape[2], images.shape[3])] * len(images)
    return [(height, width) for height, width in sizes.tolist()]


def on_canvas(
    images: Shaped[Tensor, "b c h w"], sizes: Int[Tensor, "b 2"] | None, canvas: Size
) -> Shaped[Tensor, "b c new_h new_w"]:
    """Images padded at the right and at the bottom to `canvas`, or to their own size if that is larger.

    Padding is missing, as is what lies outside of `sizes`, so the encoder sees the mean of the channel there (see
    `patches.filled`). uint8 images cannot say so: they become floats between 0 and 1, unless nothing is padded.
    """
    height, width = size_of(images)
    right, bottom = max(0, canvas.width - width), max(0, canvas.height - height)
    if sizes is None and not right and not bottom:
        return images
    values = images / 255 if images.dtype == torch.uint8 else images
    values = F.pad(values, (0, right, 0, bottom), value=math.nan)
    if sizes is None:
        return values
    sizes = sizes.to(values.device)
    rows, columns = (torch.arange(side, device=values.device) for side in size_of(values))
    inside = (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])
    return values.masked_fill(~inside[:, None], math.nan)


def canvas_of(images: Shaped[Tensor, "b c h w"], grid: Size, patch_size: int) -> Size:
    """The size of `grid` patches in pixels, or of more patches where images are larger.

    So all batches have one canvas, and positions do not depend on a picture's neighbours.
    """
    sides = zip(grid, size_of(images), strict=True)
    return Size(*(max(count, -(-side // patch_size)) * patch_size for count, side in sides))
