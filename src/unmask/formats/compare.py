"""Verify a conversion: run the same batch through two libraries and compare."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from PIL import Image, ImageOps
from torch import Tensor

from unmask.channels import Statistics
from unmask.formats.model import ModelSpec, Weights
from unmask.masking import RandomMasking
from unmask.masking.random import mask_from_noise
from unmask.objectives.mae import MaskedAutoencoder
from unmask.patches import normalize, patch_grid, patchify, unpatchify
from unmask.randomness import generator
from unmask.traits import Masked

_IMAGES = 2


class Check(NamedTuple):
    """The difference between two libraries with the same weights and images."""

    against: str
    """The other library and its version."""
    of: str
    """The compared outputs."""
    difference: float
    """The largest absolute difference of any value."""


class Seen(NamedTuple):
    """What another library makes of a picture file."""

    against: str
    """The other library and its version."""
    pixels: Float[Tensor, "c h w"]
    """The input of its model, normalised."""
    tokens: Float[Tensor, "tokens d"]
    """The features of every token, class token first."""


@runtime_checkable
class Seeing(Protocol):
    """A format for a library that prepares pictures itself."""

    def see(self, weights: Weights, file: Path, picture: Path) -> Seen | None:
        """What the library makes of a picture file with the written weights; None if it is not installed."""
        ...


class Trial(NamedTuple):
    """A batch to compare on."""

    images: Shaped[Tensor, "b c h w"]
    """Images as input of this package."""
    pixels: Float[Tensor, "b c h w"]
    """The same images normalised, as input of other libraries."""
    noise: Float[Tensor, "b n"]
    """Noise for masking; the patches with the smallest noise are kept."""


class Outputs(NamedTuple):
    """The outputs of a masked autoencoder for a trial."""

    visible: Float[Tensor, "b tokens d"]
    """Tokens after the encoder: class token and visible patches, and mask tokens if the encoder has them."""
    prediction: Float[Tensor, "b n p"]
    """Prediction for every patch, in image order."""
    loss: Float[Tensor, ""]
    """Mean error of the hidden patches."""


def trial(spec: ModelSpec) -> Trial:
    """Random images of the model's size, the same in every call."""
    random = generator("cpu", "compare")
    shape = (_IMAGES, spec.channels, *spec.image_size)
    mean, std = spec.statistics.tensors()
    images = torch.randint(256, shape, generator=random, dtype=torch.uint8)
    if spec.statistics.values == "float32":
        images = mean[:, None, None] + std[:, None, None] * torch.randn(shape, generator=random)
    grid = patch_grid(spec.image_size, spec.encoder.patch_size)
    patches = normalize(patchify(images, spec.encoder.patch_size), Statistics(mean, std))
    pixels = unpatchify(patches, spec.encoder.patch_size, grid)
    return Trial(images, pixels, torch.rand(_IMAGES, grid.height * grid.width, generator=random))


def upright(picture: Path, spec: ModelSpec) -> Image.Image:
    """A picture file as the model card opens it for other libraries."""
    with Image.open(picture) as image:
        return ImageOps.exif_transpose(image).convert("RGB" if spec.channels == 3 else "L")


@torch.no_grad()
def features(weights: Weights, batch: Trial) -> Float[Tensor, "b tokens d"]:
    """The encoder's tokens of whole images, class token first."""
    encoded = weights.build_encoder().eval().encode(batch.images)
    return torch.cat([encoded.cls, encoded.patches], dim=1)


@torch.no_grad()
def outputs(weights: Weights, batch: Trial) -> Outputs:
    """All outputs of the model, with the masks from the trial's noise."""
    objective = weights.build_objective().eval()
    assert isinstance(objective, MaskedAutoencoder)
    mask = mask_from_noise(batch.noise, mask_ratio(weights.spec))
    encoded = objective.encode(batch.images, mask)
    return Outputs(
        torch.cat([encoded.cls, encoded.patches], dim=1),
        objective.predict_all(batch.images, mask),
        objective.loss(batch.images, mask),
    )


def mask_ratio(spec: ModelSpec) -> float:
    """The ratio of random masking; MAE's ratio for other maskings, which other libraries lack."""
    masking = spec.objective.masking if isinstance(spec.objective, Masked) else None
    return masking.ratio if isinstance(masking, RandomMasking) else RandomMasking().ratio


def largest_difference(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """The largest absolute difference over all values of all pairs of tensors."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((our_tensor - their_tensor).abs().max()) for our_tensor, their_tensor in pairs)
