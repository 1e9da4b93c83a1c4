"""Draw the masks of a step: the one place that calls a masking, whatever it needs."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.contracts import Masking, Part, Size
from unmask.masks import PatchMask
from unmask.traits import LooksAtImages


def draw_masks(
    masking: Masking,
    images: Shaped[Tensor, "b c h w"],
    grid: Size,
    generator: torch.Generator,
    *,
    part: Part | None = None,
    masks_per_image: int = 1,
) -> PatchMask:
    """Masks of some images of a step, the masks of one image side by side.

    Masks are drawn for the whole step, and an image takes its rows. So they are the same for any number of processes
    and any micro-batch, if the generator is in the same state for all parts of a step. Each image gets the masks of
    `masks_per_image` draws.
    """
    whole = len(images) if part is None else part.whole
    if isinstance(masking, LooksAtImages):
        return _from_pixels(masking, images, grid, generator, part, masks_per_image)
    mask = masking.sample(whole * masks_per_image, grid, generator)
    if masks_per_image > 1:
        mask = mask._replace(image=mask.image // masks_per_image)
    return mask if part is None else mask.of_images(*part)


def count_visible(masking: Masking, grid: Size) -> int:
    """How many patches each mask of a grid keeps; SettingsError if the masking cannot mask such a grid."""
    mask = masking.sample(1, grid, torch.Generator().manual_seed(0))
    return mask.kept_index.shape[1]


def _from_pixels(
    masking: LooksAtImages,
    images: Shaped[Tensor, "b c h w"],
    grid: Size,
    generator: torch.Generator,
    part: Part | None,
    masks_per_image: int,
) -> PatchMask:
    """Masks of a masking that sees pixels, one image at a time.

    The pixels of other parts of the step are not here, so each image has a seed of its own instead of a row of a common
    draw.
    """
    whole = len(images) if part is None else part.whole
    shape = (whole, masks_per_image)
    seeds = torch.randint(2**62, shape, generator=generator, device=generator.device).cpu()
    if part is not None:
        seeds = seeds[part.rows.cpu()]
    device = generator.device
    masks = [
        masking.sample_of(images[i : i + 1], grid, torch.Generator(device).manual_seed(int(seed)))
        for i in range(len(images))
        for seed in seeds[i]
    ]
    rows_per_image = masks_per_image * len(masks[0].image)
    return PatchMask(
        torch.arange(len(images), device=device).repeat_interleave(rows_per_image),
        torch.cat([mask.removed for mask in masks]),
        torch.cat([mask.kept_index for mask in masks]),
        torch.cat([mask.removed_index for mask in masks]),
    )
