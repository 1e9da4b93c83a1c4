"""What corruptions are made of: blurs, trails, reliefs and displacements, of arrays [rows columns channels] from 0 to 1."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Pixels = NDArray[np.floating[Any]]
"""Rows, columns and channels, from 0 to 1."""

SIDE = 224
"""Pixels of the shorter side for which the settings of corruptions are published."""

_LONGEST = 1024
"""Longest side of a relief in pixels; longer pictures repeat it, because a full one would take up to a minute."""


def planes_of(pixels: Pixels) -> Float[Tensor, "c h w"]:
    """Channels first, as torch has them."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)))


def pixels_of(planes: Float[Tensor, "c h w"]) -> Pixels:
    """Channels last."""
    return planes.permute(1, 2, 0).numpy()


def grey(pixels: Pixels) -> Pixels:
    """Luma of colours, the mean of other channels."""
    if pixels.shape[2] != 3:
        return pixels.mean(2, keepdims=True)
    return pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)


def working_size(pixels: Pixels) -> tuple[int, int]:
    """The size at which layers over a picture are drawn: its shorter side as in the published settings."""
    height, width = pixels.shape[:2]
    ratio = SIDE / min(height, width)
    return round(height * ratio), round(width * ratio)


def resized_like(layer: Pixels, like: Pixels) -> Pixels:
    """A layer at the size of the picture."""
    size = like.shape[:2]
    if layer.shape[:2] == size:
        return layer
    planes = planes_of(layer.astype(np.float32))[None]
    return pixels_of(F.interpolate(planes, size, mode="bilinear", antialias=True)[0])


def gaussian(pixels: Pixels, deviation: float, mode: str = "nearest") -> Pixels:
    """Each channel blurred; the deviation in pixels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(pixels, (deviation, deviation, 0), mode=mode)


def filtered(pixels: Pixels, kernel: Pixels, padding: Any) -> Pixels:
    """Each channel convolved with a kernel of odd sides."""
    from scipy.signal import fftconvolve

    down, right = (side // 2 for side in kernel.shape)
    # a picture narrower than the kernel cannot be reflected so far
    fits = padding != "reflect" or (down < pixels.shape[0] and right < pixels.shape[1])
    padded = np.pad(
        pixels, ((down, down), (right, right), (0, 0)), mode=padding if fits else "edge"
    )
    return fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1)).astype(np.float32)


def disk(radius: float) -> Pixels:
    """The share of each pixel inside a disk around the middle one."""
    fine, half = 8, int(np.ceil(radius))
    places = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = places[:, None] ** 2 + places**2 <= radius**2
    side = 2 * half + 1
    shares = inside.reshape(side, fine, side, fine).mean((1, 3)).astype(np.float32)
    if not shares.any():
        shares[half, half] = 1
    return shares / shares.sum()


def softened(kernel: Pixels, deviation: float) -> Pixels:
    """A kernel with a blurred edge, larger by as much as that needs."""
    padded = np.pad(kernel, int(np.ceil(3 * deviation)))
    return gaussian(padded[:, :, None], deviation, mode="constant")[:, :, 0]


def trail(radius: int, deviation: float, degrees: float, unit: float) -> Pixels:
    """What a moving point leaves behind: half a Gaussian along a line; lengths in pixels of a picture of 224."""
    count = 2 * radius + 1
    weights = np.exp(-(np.arange(count) ** 2) / (2 * deviation**2))
    angle, steps = np.deg2rad(degrees), np.arange(count) * unit
    down, right = -steps * np.sin(angle), -steps * np.cos(angle)
    half = int(np.ceil(steps[-1])) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for row_side in (0, 1):
        for column_side in (0, 1):
            rows, columns = np.floor(down).astype(int) + row_side, np.floor(right).astype(int)
            columns = columns + column_side
            share = (1 - np.abs(down - rows)) * (1 - np.abs(right - columns))
            np.add.at(kernel, (rows + half, columns + half), weights * share)
    return (kernel / kernel.sum()).astype(np.float32)


def magnified(planes: Float[Tensor, "c h w"], zoom: float) -> Float[Tensor, "c h w"]:
    """The middle of a picture, magnified to all of it."""
    height, width = planes.shape[1:]
    turn = torch.tensor([[[1 / zoom, 0, 0], [0, 1 / zoom, 0]]])
    grid = F.affine_grid(turn, [1, 1, height, width], align_corners=False)
    return F.grid_sample(planes[None], grid, padding_mode="border", align_corners=False)[0]


def sampled(planes: Float[Tensor, "c h w"], rows: Pixels, columns: Pixels) -> Pixels:
    """The picture at places between pixels, bilinear; reflected at its edges."""
    height, width = planes.shape[1:]
    places = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    grid = torch.from_numpy(np.stack(places, 2))[None]
    return pixels_of(
        F.grid_sample(planes[None], grid, padding_mode="reflection", align_corners=False)[0]
    )


def plasma(height: int, width: int, decay: float, random: Generator) -> Pixels:
    """A relief from 0 to 1 by the diamond-square method (Fournier, Fussell and Carpenter, 1982).

    A square whose side is a power of two is halved again and again; each new height is the mean of four, and a random
    part, which falls by `decay` with every halving. Its edges join, so longer reliefs repeat it.
    """
    side = 1 << (min(max(height, width), _LONGEST) - 1).bit_length()
    relief, reach, step = np.zeros((side, side)), 1.0, side
    while step > 1:
        half = step // 2
        corners = relief[::step, ::step]
        right = np.roll(corners, -1, 1)
        middles = (corners + right + np.roll(corners, -1, 0) + np.roll(right, -1, 0)) / 4
        relief[half::step, half::step] = middles + random.uniform(-reach, reach, middles.shape)
        middles = relief[half::step, half::step]
        top = (corners + right + middles + np.roll(middles, 1, 0)) / 4
        relief[::step, half::step] = top + random.uniform(-reach, reach, top.shape)
        left = (corners + np.roll(corners, -1, 0) + middles + np.roll(middles, 1, 1)) / 4
        relief[half::step, ::step] = left + random.uniform(-reach, reach, left.shape)
        step, reach = half, reach / decay
    relief -= relief.min()
    rows, columns = (np.arange(length) % side for length in (height, width))
    return (relief / relief.max())[rows[:, None], columns].astype(np.float32)
