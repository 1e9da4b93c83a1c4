"""Hide parts of an image, rebuild them, and say how far off that is beside simpler guesses."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from unmask.contracts import ImageSource, PatchMask, Size
from unmask.data.views import center_crop
from unmask.errors import DataError
from unmask.objectives.mae import MaskedAutoencoder
from unmask.patches import denormalize, patchify, size_of, unpatchify
from unmask.targets.pixels import Levels

_LOOKED_THROUGH = 2_000
_GREY = 0.5


class Reconstruction(NamedTuple):
    """An image in the four forms of the paper's figures 2 and 3, each [c h w] between 0 and 1."""

    masked: Tensor
    rebuilt: Tensor
    """The decoder's output everywhere; it was never trained on the visible patches."""
    pasted: Tensor
    """The output where hidden, the input where visible."""
    original: Tensor
    error: float
    """Root mean square error on the hidden pixels, in levels of 255."""
    interpolation_error: float
    """The same for interpolation from the visible patches."""


@torch.inference_mode()
def reconstruct(
    objective: MaskedAutoencoder,
    image: UInt8[Tensor, "c h w"],
    mask: PatchMask,
    levels: Levels,
) -> Reconstruction:
    """Rebuild the patches of one image that a mask hides."""
    images, statistics = image[None], objective.encoder.statistics
    output = objective.predict_all(images, mask)
    output = objective.target.pixels(output, images, mask, statistics, levels)
    output = denormalize(output, statistics).clamp(0, 1)
    patch_size, grid = objective.encoder.patch_size, objective.grid_of(images)
    hidden = pixels_of(mask, patch_size, grid)[0]
    rebuilt = unpatchify(output, patch_size, grid)[0]
    original = image.float() / 255
    return Reconstruction(
        masked=original.masked_fill(hidden, _GREY),
        rebuilt=rebuilt,
        pasted=torch.where(hidden, rebuilt, original),
        original=original,
        error=_levels_off(rebuilt, original, hidden),
        interpolation_error=_levels_off(interpolated(original, hidden), original, hidden),
    )


def pixels_of(mask: PatchMask, patch_size: int, grid: Size) -> Tensor:
    """Which pixels are hidden, [m h w]."""
    rows = mask.removed.unflatten(1, tuple(grid))
    return rows.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)


def _levels_off(guess: Tensor, truth: Tensor, hidden: Bool[Tensor, "h w"]) -> float:
    """Root mean square error on the hidden pixels, in levels of 255."""
    return float((guess - truth)[:, hidden].square().mean().sqrt() * 255)


def interpolated(
    image: Float[Tensor, "c h w"], hidden: Bool[Tensor, "h w"]
) -> Float[Tensor, "c h w"]:
    """Hidden pixels filled in linearly between visible ones; the nearest one's value beyond them."""
    from scipy.interpolate import griddata
    from scipy.spatial import QhullError

    values = image[:, ~hidden].T.cpu().numpy()
    known, asked = ((~hidden).nonzero().cpu().numpy(), hidden.nonzero().cpu().numpy())
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
    source: ImageSource, patch_size: int, questions: list[tuple[Tensor, PatchMask]]
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
            image = source[int(position)].image
        except DataError:
            continue
        looked += 1
        for number, (asked, mask) in enumerate(questions):
            candidate = patchify(center_crop(image, size_of(asked[None]))[None], patch_size).float()
            wanted = patchify(asked[None].cpu(), patch_size).float()
            off = (candidate - wanted).square().mean(-1)[0]  # [n]
            visible = float(off[mask.kept_index[0].cpu()].mean())
            itself = not bool(off.any())
            if visible < best[number][0] and not itself:
                hidden = float(off[mask.removed_index[0].cpu()].mean().sqrt())
                best[number] = (visible, hidden, source.name(int(position)))
    return [(hidden, name) if name else None for _, hidden, name in best], looked


def fitted_size(image: Size, trained: Size, patch_size: int) -> Size:
    """The size, in whole patches, that keeps an image's proportions and about the trained area."""
    scale = (trained.height * trained.width / (image.height * image.width)) ** 0.5
    return Size(*(max(1, round(side * scale / patch_size)) * patch_size for side in image))
