"""Raw pixels as features: the baseline that an encoder must beat.

Pixels are those that the encoder would see, normalised as for the encoder, and averaged over areas down to a bounded
number of values, so that the baseline stays cheap. They depend on no weights, so all encoders share their cache.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.cache import cache_folder
from unmask.data.in_order import WHOLE_IMAGE, Unreadable
from unmask.evaluation.features import Tokens, Vectors, labels_of, whole_images
from unmask.evaluation.store import CachedFeatures, T, facts_of, kept, versions
from unmask.formats.model import ModelSpec
from unmask.patches import filled, normalize, patch_grid, patchify
from unmask.spec import to_json

MOST_VALUES, LEAST_VALUES = 3072, 192
"""Values of an image: at most 32 x 32 pixels of three channels, and 8 x 8 of very many images."""

MOST_BYTES = 2**28
"""Bytes of all training images; with more than 21,845 images, each has fewer values, down to `LEAST_VALUES`."""

_FORMAT = 1
_CPU = torch.device("cpu")


def averaged_size(size: Size, channels: int, images: int) -> Size:
    """The size that images of `size` are averaged to; `size` itself if they have few enough values."""
    most = min(MOST_VALUES, max(LEAST_VALUES, MOST_BYTES // (4 * max(1, images))))
    share = min(1.0, math.sqrt(most / (channels * size.height * size.width)))
    return Size(*(max(1, int(side * share + 1e-9)) for side in size))


def token_size(spec: ModelSpec, images: int) -> Size:
    """The size that images are averaged to if each patch is a token: as many pixels for every patch, at least one."""
    size = averaged_size(spec.image_size, spec.channels, images)
    grid = patch_grid(spec.image_size, spec.encoder.patch_size)
    side = max(1, min(size.height // grid.height, size.width // grid.width))
    return Size(grid.height * side, grid.width * side)


def raw_words(spec: ModelSpec, size: Size) -> str:
    """What the pixels are, in words."""
    averaged = "" if size == spec.image_size else f", averaged to {size.height} x {size.width}"
    height, width = spec.image_size
    return f"pixels at {height} x {width}{averaged}, normalised as for the encoder"


def raw_pixels(spec: ModelSpec, source: ImageSource, size: Size) -> CachedFeatures[Vectors]:
    """A vector of the pixels of each image, averaged to a size."""
    cached = _kept(spec, source, size, Vectors, partial(_pixels, source, spec, size))
    return replace(cached, features=cached.features._replace(feature="pixels"))


def raw_tokens(spec: ModelSpec, source: ImageSource, size: Size) -> CachedFeatures[Tokens]:
    """The pixels of each patch as a token, averaged to a `token_size`, and their mean in place of the class token."""
    return _kept(spec, source, size, Tokens, partial(_tokens, source, spec, size))


def _kept(
    spec: ModelSpec, source: ImageSource, size: Size, kind: type[T], compute: Callable[[], T]
) -> CachedFeatures[T]:
    """Pixels from the user's cache, else computed."""
    facts = {
        "pixels": _FORMAT,
        "averaged_to": list(size),
        "patch_size": spec.encoder.patch_size,
        "versions": versions(),
        "views": to_json(WHOLE_IMAGE),
        "image_size": list(spec.image_size),
        "statistics": to_json(spec.statistics),
        **facts_of(source),
    }
    return kept(cache_folder() / "features", facts, kind, compute)


def _pixels(source: ImageSource, spec: ModelSpec, size: Size) -> Vectors:
    vectors = torch.empty(len(source), spec.channels * size.height * size.width)
    positions: list[int] = []
    unreadable: Unreadable = []
    for rows, images in whole_images(
        source, spec.image_size, spec.statistics, _CPU, None, positions, unreadable
    ):
        vectors[rows] = averaged(images, spec.statistics, size).flatten(1)
    labels = labels_of(source, positions)
    return Vectors(vectors[: len(positions)], labels, torch.tensor(positions), unreadable)


def _tokens(source: ImageSource, spec: ModelSpec, size: Size) -> Tokens:
    side = size.height * spec.encoder.patch_size // spec.image_size.height
    patches = size.height * size.width // side**2
    tokens = torch.empty(len(source), 1 + patches, spec.channels * side**2)
    positions: list[int] = []
    unreadable: Unreadable = []
    for rows, images in whole_images(
        source, spec.image_size, spec.statistics, _CPU, None, positions, unreadable
    ):
        tokens[rows, 1:] = patchify(averaged(images, spec.statistics, size), side)
        tokens[rows, 0] = tokens[rows, 1:].mean(1)
    labels = labels_of(source, positions)
    return Tokens(tokens[: len(positions)], labels, torch.tensor(positions), unreadable)


def averaged(
    images: Shaped[Tensor, "b c h w"], statistics: ChannelStatistics, size: Size
) -> Float[Tensor, "b c new_h new_w"]:
    """Normalised pixels, each the mean over its area; missing values count as the mean of their channel."""
    pixels = filled(normalize(images.permute(0, 2, 3, 1), statistics.tensors()))
    return F.interpolate(pixels.permute(0, 3, 1, 2), tuple(size), mode="area")
