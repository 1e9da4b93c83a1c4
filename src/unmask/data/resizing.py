"""Resizing as torchvision does it, bit for bit but to a width of one pixel, without the seconds that importing torchvision takes."""

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size


def bicubic(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """An image of integers or floats, resized with antialiasing; integers are rounded, and those of uint8 stay within 0 to 255."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    # torch resizes uint8 as integers on a CPU alone, with another rounding than floats, and wrongly to a width of 1
    whole = image.dtype == torch.uint8 and image.is_cpu and size.width > 1
    as_it_is = whole or image.dtype in (torch.float32, torch.float64)
    values = (image if as_it_is else image.float())[None]
    resized = F.interpolate(
        values, tuple(size), mode="bicubic", align_corners=False, antialias=True
    )
    if image.dtype == torch.uint8 and not whole:
        resized = resized.clamp(0, 255)
    return _as(resized[0], image)


def nearest(maps: Shaped[Tensor, "n h w"], size: Size) -> Shaped[Tensor, "n new_h new_w"]:
    """Maps resized so that values are never mixed; plain "nearest" would be off by half a pixel."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    as_it_is = maps.is_floating_point() or maps.dtype == torch.uint8
    values = (maps if as_it_is else maps.float())[None]
    return _as(F.interpolate(values, tuple(size), mode="nearest-exact")[0], maps)


def _as(resized: Tensor, like: Tensor) -> Tensor:
    if resized.dtype == like.dtype:
        return resized
    return (resized if like.is_floating_point() else resized.round()).to(like.dtype)
