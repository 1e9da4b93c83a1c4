"""Pictures of a batch on a canvas of one size, for tasks that say where in a picture something is."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from unmask.contracts import Size


def sizes_of(
    images: Shaped[Tensor, "b c h w"], sizes: Int[Tensor, "b 2"] | None
) -> list[tuple[int, int]]:
    """Height and width of each picture of a batch; `sizes` as in `Batch`."""
    if sizes is None:
        return [(images.shape[2], images.shape[3])] * len(images)
    return [(height, width) for height, width in sizes.tolist()]


def on_canvas(
    images: Shaped[Tensor, "b c h w"], sizes: Int[Tensor, "b 2"] | None, grid: Size, patch_size: int
) -> Float[Tensor, "b c height width"]:
    """Pictures on a canvas of `grid` patches, in the units of the encoder's statistics; the rest is missing (NaN).

    The encoder takes missing values as the mean. All batches have one canvas, so that positions do not depend on a
    picture's neighbours; it only grows, to whole patches, for pictures that are larger.
    """
    sides = [
        max(count, -(-side // patch_size)) * patch_size
        for count, side in zip(grid, images.shape[2:], strict=True)
    ]
    canvas = images.new_full((*images.shape[:2], *sides), torch.nan, dtype=torch.float32)
    for row, (height, width) in enumerate(sizes_of(images, sizes)):
        picture = images[row, :, :height, :width]
        bytes_ = picture.dtype == torch.uint8
        canvas[row, :, :height, :width] = picture.float() / 255 if bytes_ else picture
    return canvas
