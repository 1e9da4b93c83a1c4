"""What an objective is shown of an image: crops and flips, still uint8, never normalised."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated

from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.randomness import seeded
from unmask.spec import Kind

_BICUBIC = v2.InterpolationMode.BICUBIC


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
        self, image: UInt8[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[UInt8[Tensor, "c new_h new_w"], ...]:
        """One view; its crop and flip depend on the key alone."""
        crop, flip = _transforms(self, size)
        with seeded("crop", *key):
            return (flip(crop(image)),)


@cache
def _transforms(views: RandomCrop, size: Size) -> tuple[v2.Transform, v2.Transform]:
    crop = v2.RandomResizedCrop(
        list(size), scale=(views.smallest_share, 1.0), interpolation=_BICUBIC, antialias=True
    )
    return crop, v2.RandomHorizontalFlip(views.flip_probability)


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """The middle of the image, resized; nothing is drawn."""

    def __call__(
        self, image: UInt8[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[UInt8[Tensor, "c new_h new_w"], ...]:
        """One view, the same for every key."""
        return (center_crop(image, size),)


def center_crop(image: UInt8[Tensor, "c h w"], size: Size) -> UInt8[Tensor, "c new_h new_w"]:
    """Resize until the image covers `size`, then cut out the middle; proportions stay."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    scale = max(size.height / height, size.width / width)
    covering = [max(size.height, round(height * scale)), max(size.width, round(width * scale))]
    return F.center_crop(F.resize(image, covering, _BICUBIC, antialias=True), list(size))


AnyViews = Annotated[RandomCrop, Kind("random-crop")] | Annotated[CenterCrop, Kind("center-crop")]
