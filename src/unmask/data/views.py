"""What an objective is shown of an image: crops and flips, still uint8, never normalised."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Shaped
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.randomness import generator
from unmask.spec import Kind

_BICUBIC = v2.InterpolationMode.BICUBIC
_TRIES = 10
_WIDEST = 4 / 3  # and 3/4 the tallest


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """A random part of the image, resized, and a random flip (MAE table 8)."""

    smallest_share: float = 0.2
    """Least share of the image's area in a crop; MAE uses 0.2."""

    flip_probability: float = 0.5
    """How often to mirror left and right; 0 where sides matter, as in writing."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest_share <= 1:
            raise SettingsError(
                f"smallest_share must lie above 0 and at most at 1, got {self.smallest_share}"
            )
        if not 0 <= self.flip_probability <= 1:
            raise SettingsError(
                f"flip_probability must lie between 0 and 1, got {self.flip_probability}"
            )

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view; its crop and flip depend on the key alone."""
        random = generator("cpu", "crop", *key)
        whole = Size(image.shape[-2], image.shape[-1])
        top, left, height, width = draw_box(whole, self.smallest_share, random)
        part = image[:, top : top + height, left : left + width]
        view = F.resize(part, list(size), _BICUBIC, antialias=True)
        mirrored = torch.rand((), generator=random).item() < self.flip_probability
        return (view.flip(-1) if mirrored else view,)


def draw_box(
    size: Size, smallest_share: float, random: torch.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of an image.

    The rule of torchvision's RandomResizedCrop: share of the area and logarithm of the proportions
    are uniform; if ten draws do not fit, the largest part in the middle with allowed proportions.
    """
    for draws in torch.rand(_TRIES, 4, generator=random).tolist():
        area = size.height * size.width * (smallest_share + draws[0] * (1 - smallest_share))
        proportions = math.exp((2 * draws[1] - 1) * math.log(_WIDEST))
        height, width = round(math.sqrt(area / proportions)), round(math.sqrt(area * proportions))
        if 0 < height <= size.height and 0 < width <= size.width:
            top = int(draws[2] * (size.height - height + 1))
            return top, int(draws[3] * (size.width - width + 1)), height, width
    height = min(size.height, round(size.width * _WIDEST))
    width = min(size.width, round(size.height * _WIDEST))
    return (size.height - height) // 2, (size.width - width) // 2, height, width


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """The middle of the image, resized; nothing is drawn."""

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view, the same for every key."""
        return (center_crop(image, size),)


def center_crop(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """Resize until the image covers `size`, then cut out the middle; proportions stay."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    scale = max(size.height / height, size.width / width)
    covering = [max(size.height, round(height * scale)), max(size.width, round(width * scale))]
    return F.center_crop(F.resize(image, covering, _BICUBIC, antialias=True), list(size))


AnyViews = Annotated[RandomCrop, Kind("random-crop")] | Annotated[CenterCrop, Kind("center-crop")]
