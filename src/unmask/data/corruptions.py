"""Fifteen corruptions of five severities: noise, blur, weather and what cameras and files do to pictures.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019. The
settings are the published ones for pictures of 224 pixels. Lengths of blurs, flakes and displacements are fractions of the
shorter side here, so that they look alike at every size; noise, pixelation and JPEG change pixels as they are. Elastic
displacements are those of imagecorruptions 1.1.2, which measures them by the side, too. Frost, for which the authors use
photographs, is synthesised.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unmask.errors import SettingsError
from unmask.randomness import derive

Pixels = NDArray[np.floating[Any]]
"""Rows, columns and channels, from 0 to 1."""

_SIDE = 224  # pixels of the shorter side for which the settings are published
SEVERITIES = 5


class Drawn(NamedTuple):
    """What a corruption may use besides the pixels."""

    random: Generator
    unit: float
    """Pixels of this picture for one pixel of a picture of 224."""


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption."""

    group: str
    settings: tuple[Any, ...]
    """What the five severities use, the mildest first."""
    change: Callable[[Pixels, Any, Drawn], Pixels]


def corrupted(
    image: Shaped[Tensor, "c h w"], name: str, severity: int, seed: int, position: int
) -> Shaped[Tensor, "c h w"]:
    """A corrupted copy of an image; the same for the same numbers.

    Args:
        image: uint8, of any number of channels.
        name: a corruption of `CORRUPTIONS`.
        severity: from 1, the mildest, to 5.
        seed: of all draws.
        position: number of the image in its source, so that each draws for itself.

    Raises:
        SettingsError: if the image is not uint8.
    """
    if image.dtype != torch.uint8:
        raise SettingsError(
            f"corruptions are defined for pictures of 8 bits, and this one has values of {image.dtype}"
        )
    kind = CORRUPTIONS[name]
    random = np.random.default_rng(derive(f"corruption {name}", seed, position, severity))
    pixels = image.permute(1, 2, 0).numpy().astype(np.float32) / 255
    drawn = Drawn(random, min(image.shape[1:]) / _SIDE)
    changed = kind.change(pixels, kind.settings[severity - 1], drawn)
    rounded = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return torch.from_numpy(rounded).permute(2, 0, 1).contiguous()


def _gaussian_noise(pixels: Pixels, deviation: float, drawn: Drawn) -> Pixels:
    return pixels + deviation * drawn.random.standard_normal(pixels.shape, np.float32)


def _shot_noise(pixels: Pixels, photons: float, drawn: Drawn) -> Pixels:
    return (drawn.random.poisson(pixels * photons) / photons).astype(np.float32)


def _impulse_noise(pixels: Pixels, share: float, drawn: Drawn) -> Pixels:
    hit = drawn.random.random(pixels.shape) < share
    return np.where(hit, drawn.random.random(pixels.shape) < 0.5, pixels).astype(np.float32)


def _defocus_blur(pixels: Pixels, setting: tuple[float, float], drawn: Drawn) -> Pixels:
    """A disk, whose edge is softened."""
    radius, softness = setting
    kernel = _softened(_disk(radius * drawn.unit), softness * drawn.unit)
    return _filtered(pixels, kernel, "reflect")


def _glass_blur(pixels: Pixels, setting: tuple[float, int, int], drawn: Drawn) -> Pixels:
    """Pixels are copied from near ones, from the last to the first as in the authors' code, between two mild blurs."""
    deviation, most, rounds = setting
    height, width = pixels.shape[:2]
    pixels = _gaussian(pixels, deviation * drawn.unit)
    rows, columns = np.mgrid[:height, :width]
    places, shape = np.arange(height * width), (2, height, width)
    for _ in range(rounds):
        moved = drawn.random.integers(-most, most, shape) * drawn.unit
        # rounded up as often as a length between two pixels is nearer to the larger one
        down, right = np.floor(moved + drawn.random.random(shape)).astype(int)
        step = np.clip(rows + down, 0, height - 1) * width + np.clip(columns + right, 0, width - 1)
        source = step.ravel().copy()
        ahead = np.flatnonzero(source > places)  # what is copied there was copied before
        while len(ahead):
            before = source[ahead]
            source[ahead] = step.ravel()[before]
            ahead = ahead[source[ahead] > before]
        pixels = pixels.reshape(height * width, -1)[source].reshape(pixels.shape)
    return _gaussian(pixels, deviation * drawn.unit)


def _motion_blur(pixels: Pixels, setting: tuple[int, float], drawn: Drawn) -> Pixels:
    kernel = _trail(*setting, drawn.random.uniform(-45, 45), drawn.unit)
    return _filtered(pixels, kernel, "edge")


def _zoom_blur(pixels: Pixels, zooms: Pixels, _drawn: Drawn) -> Pixels:
    """The mean of the picture and of its magnified middle, at rising magnifications."""
    planes = _planes(pixels)
    magnified = [_magnified(planes, float(zoom)) for zoom in zooms]
    return _pixels(torch.stack([planes, *magnified]).mean(0))


class _Snow(NamedTuple):
    mean: float
    deviation: float
    zoom: float
    least: float
    radius: int
    spread: float
    kept: float


def _snow(pixels: Pixels, setting: _Snow, drawn: Drawn) -> Pixels:
    """Flakes that fall in one direction, twice, over a paler picture."""
    height, width = _working(pixels)
    flakes = setting.mean + setting.deviation * drawn.random.standard_normal(
        (height, width, 1), np.float32
    )
    flakes = _pixels(_magnified(_planes(flakes), setting.zoom))
    flakes = np.clip(np.where(flakes < setting.least, 0, flakes), 0, 1)
    trail = _trail(setting.radius, setting.spread, drawn.random.uniform(-135, -45), 1.0)
    flakes = _resized(_filtered(flakes, trail, "edge"), pixels)
    pale = np.maximum(pixels, 1.5 * _grey(pixels) + 0.5)
    pixels = setting.kept * pixels + (1 - setting.kept) * pale
    return pixels + flakes + flakes[::-1, ::-1]


_FROST = ((0.30, 0.58, 0.65), (0.79, 0.81, 0.84), (0.54, 0.60, 0.65), (0.44, 0.48, 0.53))
"""Colours of frost: the means of the authors' photographs."""


def _frost(pixels: Pixels, setting: tuple[float, float], drawn: Drawn) -> Pixels:
    """Ice in ridges over a darker picture; made of noise, where the authors use five photographs."""
    kept, ice = setting
    shade = np.array(_FROST[drawn.random.choice([0, 1, 1, 2, 3])], np.float32)
    if pixels.shape[2] != len(shade):
        shade = shade.mean(keepdims=True)
    height, width = _working(pixels)
    heights = [_plasma(height, width, 1.7, drawn.random) for _ in range(2)]
    ridges = np.sum([1 - 2 * np.abs(one - one.mean()) / np.ptp(one) for one in heights], axis=0)
    ridges = 0.1 * (ridges - ridges.mean()) / ridges.std()
    return kept * pixels + ice * np.clip(_resized(ridges[:, :, None], pixels) + shade, 0, 1)


def _fog(pixels: Pixels, setting: tuple[float, float], drawn: Drawn) -> Pixels:
    """A random relief of brightness over the picture, which keeps its highest value."""
    strength, decay = setting
    relief = _plasma(*_working(pixels), decay**2, drawn.random)
    highest = pixels.max()
    hidden = pixels + strength * _resized(relief[:, :, None], pixels)
    return hidden * highest / (highest + strength)


def _brightness(pixels: Pixels, more: float, _drawn: Drawn) -> Pixels:
    """More value in the sense of HSV, at the same hue and saturation."""
    value = pixels.max(2, keepdims=True)
    brighter = np.minimum(value + more, 1)
    return np.where(value > 0, pixels / np.maximum(value, 1e-9) * brighter, brighter)


def _contrast(pixels: Pixels, kept: float, _drawn: Drawn) -> Pixels:
    mean = pixels.mean((0, 1), keepdims=True)
    return (pixels - mean) * kept + mean


def _elastic(pixels: Pixels, strength: float, drawn: Drawn) -> Pixels:
    """Smooth random displacements."""
    height, width = _working(pixels)
    most = 0.005 * height
    fields = drawn.random.uniform(-most, most, (height, width, 2)).astype(np.float32)
    fields = _gaussian(fields, 0.01 * _SIDE, mode="reflect") * strength * drawn.unit
    moved = _resized(fields, pixels)
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float32)
    return _sampled(_planes(pixels), rows + moved[:, :, 0], columns + moved[:, :, 1])


def _pixelate(pixels: Pixels, share: float, _drawn: Drawn) -> Pixels:
    height, width = pixels.shape[:2]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    planes = [Image.fromarray(plane) for plane in np.moveaxis(pixels, 2, 0)]
    coarse = [plane.resize(small, Image.Resampling.BOX) for plane in planes]
    again = [plane.resize((width, height), Image.Resampling.NEAREST) for plane in coarse]
    return np.stack([np.asarray(plane) for plane in again], 2)


def _jpeg(pixels: Pixels, quality: int, _drawn: Drawn) -> Pixels:
    """Colours as one picture; other channels each by itself."""
    levels = np.rint(pixels * 255).astype(np.uint8)
    parts = [levels] if levels.shape[2] == 3 else list(np.moveaxis(levels, 2, 0))
    read: list[NDArray[np.uint8]] = []
    for part in parts:
        file = io.BytesIO()
        Image.fromarray(part).save(file, "JPEG", quality=quality)
        read.append(np.asarray(Image.open(file)))
    together = read[0] if levels.shape[2] == 3 else np.stack(read, 2)
    return together.astype(np.float32) / 255


def _zooms(last: float, step: float) -> Pixels:
    return np.arange(1, last, step)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian noise": Corruption("noise", (0.08, 0.12, 0.18, 0.26, 0.38), _gaussian_noise),
    "shot noise": Corruption("noise", (60, 25, 12, 5, 3), _shot_noise),
    "impulse noise": Corruption("noise", (0.03, 0.06, 0.09, 0.17, 0.27), _impulse_noise),
    "defocus blur": Corruption(
        "blur", ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), _defocus_blur
    ),
    "glass blur": Corruption(
        "blur", ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)), _glass_blur
    ),
    "motion blur": Corruption(
        "blur", ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), _motion_blur
    ),
    "zoom blur": Corruption(
        "blur",
        (
            _zooms(1.11, 0.01),
            _zooms(1.16, 0.01),
            _zooms(1.21, 0.02),
            _zooms(1.26, 0.02),
            _zooms(1.31, 0.03),
        ),
        _zoom_blur,
    ),
    "snow": Corruption(
        "weather",
        (
            _Snow(0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            _Snow(0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            _Snow(0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            _Snow(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            _Snow(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        _snow,
    ),
    "frost": Corruption(
        "weather", ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)), _frost
    ),
    "fog": Corruption("weather", ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), _fog),
    "brightness": Corruption("weather", (0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    "contrast": Corruption("digital", (0.4, 0.3, 0.2, 0.1, 0.05), _contrast),
    "elastic": Corruption("digital", (12.5, 16.25, 21.25, 25.0, 30.0), _elastic),
    "pixelate": Corruption("digital", (0.6, 0.5, 0.4, 0.3, 0.25), _pixelate),
    "JPEG": Corruption("digital", (25, 18, 15, 10, 7), _jpeg),
}
"""The corruptions by name, in the order of the paper."""


def _planes(pixels: Pixels) -> Float[Tensor, "c h w"]:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)))


def _pixels(planes: Float[Tensor, "c h w"]) -> Pixels:
    return planes.permute(1, 2, 0).numpy()


def _grey(pixels: Pixels) -> Pixels:
    """Luma of colours, the mean of other channels."""
    if pixels.shape[2] != 3:
        return pixels.mean(2, keepdims=True)
    return pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)


def _working(pixels: Pixels) -> tuple[int, int]:
    """The size at which layers over a picture are drawn: its shorter side as in the published settings."""
    height, width = pixels.shape[:2]
    ratio = _SIDE / min(height, width)
    return round(height * ratio), round(width * ratio)


def _resized(layer: Pixels, like: Pixels) -> Pixels:
    """A layer at the size of the picture."""
    size = like.shape[:2]
    if layer.shape[:2] == size:
        return layer
    planes = _planes(layer.astype(np.float32))[None]
    return _pixels(F.interpolate(planes, size, mode="bilinear", antialias=True)[0])


def _gaussian(pixels: Pixels, deviation: float, mode: str = "nearest") -> Pixels:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(pixels, (deviation, deviation, 0), mode=mode)


def _filtered(pixels: Pixels, kernel: Pixels, padding: Any) -> Pixels:
    """Each channel convolved with a kernel of odd sides."""
    from scipy.signal import fftconvolve

    down, right = (side // 2 for side in kernel.shape)
    # a picture narrower than the kernel cannot be reflected so far
    fits = padding != "reflect" or (down < pixels.shape[0] and right < pixels.shape[1])
    padded = np.pad(
        pixels, ((down, down), (right, right), (0, 0)), mode=padding if fits else "edge"
    )
    return fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1)).astype(np.float32)


def _disk(radius: float) -> Pixels:
    """The share of each pixel inside a disk around the middle one."""
    fine, half = 8, int(np.ceil(radius))
    places = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = places[:, None] ** 2 + places**2 <= radius**2
    side = 2 * half + 1
    shares = inside.reshape(side, fine, side, fine).mean((1, 3)).astype(np.float32)
    if not shares.any():
        shares[half, half] = 1
    return shares / shares.sum()


def _softened(kernel: Pixels, deviation: float) -> Pixels:
    padded = np.pad(kernel, int(np.ceil(3 * deviation)))
    return _gaussian(padded[:, :, None], deviation, mode="constant")[:, :, 0]


def _trail(radius: int, deviation: float, degrees: float, unit: float) -> Pixels:
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


def _magnified(planes: Float[Tensor, "c h w"], zoom: float) -> Float[Tensor, "c h w"]:
    """The middle of a picture, magnified to all of it."""
    height, width = planes.shape[1:]
    turn = torch.tensor([[[1 / zoom, 0, 0], [0, 1 / zoom, 0]]])
    grid = F.affine_grid(turn, [1, 1, height, width], align_corners=False)
    return F.grid_sample(planes[None], grid, padding_mode="border", align_corners=False)[0]


def _sampled(planes: Float[Tensor, "c h w"], rows: Pixels, columns: Pixels) -> Pixels:
    """The picture at places between pixels, bilinear; reflected at its edges."""
    height, width = planes.shape[1:]
    places = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    grid = torch.from_numpy(np.stack(places, 2))[None]
    return _pixels(
        F.grid_sample(planes[None], grid, padding_mode="reflection", align_corners=False)[0]
    )


def _plasma(height: int, width: int, decay: float, random: Generator) -> Pixels:
    """A relief from 0 to 1 by the diamond-square method (Fournier, Fussell and Carpenter, 1982).

    A square whose side is a power of two is halved again and again; each new height is the mean of four, and a random
    part, which falls by `decay` with every halving. Its edges join.
    """
    side = 1 << (max(height, width) - 1).bit_length()
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
    return (relief / relief.max())[:height, :width].astype(np.float32)
