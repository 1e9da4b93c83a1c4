"""Stacking pictures into one tensor, with padding if their sizes differ."""

import math

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import default_collate


def collate_pictures(
    pictures: list[Shaped[Tensor, "c _ _"]],
) -> tuple[Shaped[Tensor, "b c h w"], Int[Tensor, "b 2"] | None]:
    """One tensor, and the height and width of each picture, or None if all have the same size.

    Smaller pictures are padded at the right and at the bottom, with 0 or, in floating point, with NaN.
    """
    if len({picture.shape for picture in pictures}) == 1:
        return default_collate(pictures), None
    sizes = torch.tensor([picture.shape[-2:] for picture in pictures])
    height, width = sizes.amax(0).tolist()
    first = pictures[0]
    missing = math.nan if first.is_floating_point() else 0
    padded = first.new_full((len(pictures), len(first), height, width), missing)
    for row, picture in zip(padded, pictures, strict=True):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    return padded, sizes
