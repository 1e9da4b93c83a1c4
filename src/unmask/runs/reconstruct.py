"""Hide parts of an image, rebuild them, and say how far off that is beside simpler guesses."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.views import center_crop
from unmask.errors import DataError
from unmask.masks import PatchMask
from unmask.patches import denormalize, patchify, pixels_of, size_of, unpatchify
from unmask.targets.pixels import Levels
from unmask.traits import Reconstructing

_LOOKED_THROUGH = 2_000


class Reconstruction(NamedTuple):
    """An image in the four forms of the paper's figures 2 and 3, each [c h w].

    uint8 images are given between 0 and 1; others in their own units, NaN where a value is missing.
    """

    masked: Tensor
    rebuilt: Tensor
    """The decoder's output everywhere; it was never trained on the visible patches."""
    pasted: Tensor
    """The output where hidden, the input where visible."""
    original: Tensor
    error: float
    """Root mean square error on the hidden pixels, in 255ths of each channel's range in pictures; NaN where
    the target is a drawing without levels."""
    interpolation_error: float
    """The same for interpolation from the visible patches."""


@torch.inference_mode()
def reconstruct(
    objective: Reconstructing,
    image: Shaped[Tensor, "c h w"],
    mask: PatchMask,
    levels: Levels,
    statistics: ChannelStatistics,
) -> Reconstruction:
    """Rebuild the patches of one image that a mask hides."""
    images, moments = image[None], objective.encoder.statistics
    output = objective.predict_all(images, mask)
    output = objective.target.pixels(output, images, mask, moments, levels)
    patch_size, grid = objective.encoder.patch_size, objective.grid_of(images)
    hidden = pixels_of(mask.removed, patch_size, grid)[0]
    rebuilt = unpatchify(denormalize(output, moments), patch_size, grid)[0]
    original = image.float()
    if image.dtype == torch.uint8:
        rebuilt, original = rebuilt.clamp(0, 1), original / 255
    middle = (torch.tensor(statistics.low) + torch.tensor(statistics.high)) / 2
    truth = statistics.stretched(original)
    filled = interpolated(original, hidden)
    error = _levels_off(statistics.stretched(rebuilt), truth, hidden)
    return Reconstruction(
        masked=torch.where(hidden, middle.to(original)[:, None, None], original),
        rebuilt=rebuilt,
        pasted=torch.where(hidden, rebuilt, original),
        original=original,
        error=error if objective.target.gives_levels else math.nan,
        interpolation_error=_levels_off(statistics.stretched(filled), truth, hidden),
    )


def _levels_off(guess: Tensor, truth: Tensor, hidden: Bool[Tensor, "h w"]) -> float:
    """Root mean square error on the hidden pixels that are known, in levels of 255."""
    return float((guess - truth)[:, hidden].square().nanmean().sqrt() * 255)


def interpolated(
    image: Float[Tensor, "c h w"], hidden: Bool[Tensor, "h w"]
) -> Float[Tensor, "c h w"]:
    """Hidden pixels filled in linearly between visible ones; the nearest one's value beyond them.

    Pixels with a missing value help nobody; where all are missing, so is what is asked for.
    """
    from scipy.interpolate import griddata
    from scipy.spatial import QhullError

    visible = ~hidden & ~image.isnan().any(0)
    if not bool(visible.any()):
        return image.masked_fill(hidden, math.nan)
    values = image[:, visible].T.cpu().numpy()
    known, asked = visible.nonzero().cpu().numpy(), hidden.nonzero().cpu().numpy()
    filled = griddata(known, values, asked, method="nearest")
    try:
        linear = griddata(known, values, asked, method="linear")
        filled = np.where(np.isnan(linear), filled, linear)
    except QhullError:  # all visible pixels lie on one line
        pass
    result = image.clone()
    result[:, hidden] = torch.from_numpy(filled.T).to(result)
    return result


def nearest_errors(
    source: ImageSource,
    patch_size: int,
    statistics: ChannelStatistics,
    questions: list[tuple[Tensor, PatchMask]],
) -> tuple[list[tuple[float, str] | None], int]:
    """For each (image, mask), the training image nearest on the visible patches, and its error on the hidden.

    A model that had only memorised would do no better than this. At most 2,000 evenly spaced images
    are looked through, and the asked image itself does not count. Returns (error in levels of 255,
    name) for each (None where there is no other image), and how many were looked through.
    """
    positions = np.unique(np.linspace(0, len(source) - 1, _LOOKED_THROUGH).astype(int))
    best = [(math.inf, 0.0, "")] * len(questions)
    looked = 0
    for position in positions:
        try:
            image = statistics.in_units(source[int(position)].image)
        except DataError:
            continue
        looked += 1
        for number, (asked, mask) in enumerate(questions):
            candidate, wanted = (
                patchify(255 * statistics.stretched(pixels)[None], patch_size)
                for pixels in (center_crop(image, size_of(asked[None])), asked.cpu())
            )
            off = (candidate - wanted).square().nanmean(-1)[0]  # [n]
            visible = float(off[mask.kept_index[0].cpu()].nanmean())
            itself = not bool(off.nan_to_num().any())
            if visible < best[number][0] and not itself:
                hidden = float(off[mask.removed_index[0].cpu()].nanmean().sqrt())
                best[number] = (visible, hidden, source.name(int(position)))
    return [(hidden, name) if name else None for _, hidden, name in best], looked


def fitted_size(image: Size, trained: Size, patch_size: int) -> Size:
    """The size, in whole patches, that keeps an image's proportions and about the trained area."""
    scale = (trained.height * trained.width / (image.height * image.width)) ** 0.5
    return Size(*(max(1, round(side * scale / patch_size)) * patch_size for side in image))
