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
from jaxtyping import Shaped
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unmask.data.corruption_parts import (
    SIDE,
    Pixels,
    disk,
    filtered,
    gaussian,
    grey,
    magnified,
    pixels_of,
    planes_of,
    plasma,
    resized_like,
    sampled,
    softened,
    trail,
    working_size,
)
from unmask.errors import SettingsError
from unmask.randomness import derive

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
    drawn = Drawn(random, min(image.shape[1:]) / SIDE)
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
    kernel = softened(disk(radius * drawn.unit), softness * drawn.unit)
    return filtered(pixels, kernel, "reflect")


def _glass_blur(pixels: Pixels, setting: tuple[float, int, int], drawn: Drawn) -> Pixels:
    """Pixels are copied from near ones, from the last to the first as in the authors' code, between two mild blurs."""
    deviation, most, rounds = setting
    height, width = pixels.shape[:2]
    pixels = gaussian(pixels, deviation * drawn.unit)
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
    return gaussian(pixels, deviation * drawn.unit)


def _motion_blur(pixels: Pixels, setting: tuple[int, float], drawn: Drawn) -> Pixels:
    kernel = trail(*setting, drawn.random.uniform(-45, 45), drawn.unit)
    return filtered(pixels, kernel, "edge")


def _zoom_blur(pixels: Pixels, zooms: Pixels, _drawn: Drawn) -> Pixels:
    """The mean of the picture and of its magnified middle, at rising magnifications."""
    planes = planes_of(pixels)
    larger = [magnified(planes, float(zoom)) for zoom in zooms]
    return pixels_of(torch.stack([planes, *larger]).mean(0))


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
    height, width = working_size(pixels)
    flakes = setting.mean + setting.deviation * drawn.random.standard_normal(
        (height, width, 1), np.float32
    )
    flakes = pixels_of(magnified(planes_of(flakes), setting.zoom))
    flakes = np.clip(np.where(flakes < setting.least, 0, flakes), 0, 1)
    fall = trail(setting.radius, setting.spread, drawn.random.uniform(-135, -45), 1.0)
    flakes = resized_like(filtered(flakes, fall, "edge"), pixels)
    pale = np.maximum(pixels, 1.5 * grey(pixels) + 0.5)
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
    height, width = working_size(pixels)
    heights = [plasma(height, width, 1.7, drawn.random) for _ in range(2)]
    ridges = np.sum([1 - 2 * np.abs(one - one.mean()) / np.ptp(one) for one in heights], axis=0)
    ridges = 0.1 * (ridges - ridges.mean()) / ridges.std()
    return kept * pixels + ice * np.clip(resized_like(ridges[:, :, None], pixels) + shade, 0, 1)


def _fog(pixels: Pixels, setting: tuple[float, float], drawn: Drawn) -> Pixels:
    """A random relief of brightness over the picture, which keeps its highest value."""
    strength, decay = setting
    relief = plasma(*working_size(pixels), decay**2, drawn.random)
    highest = pixels.max()
    hidden = pixels + strength * resized_like(relief[:, :, None], pixels)
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
    height, width = working_size(pixels)
    most = 0.005 * height
    fields = drawn.random.uniform(-most, most, (height, width, 2)).astype(np.float32)
    fields = gaussian(fields, 0.01 * SIDE, mode="reflect") * strength * drawn.unit
    moved = resized_like(fields, pixels)
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float32)
    return sampled(planes_of(pixels), rows + moved[:, :, 0], columns + moved[:, :, 1])


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
