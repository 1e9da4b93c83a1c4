"""What an objective is shown of an image: crops and flips, still uint8, never normalised."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import torch
from jaxtyping import Shaped
from PIL import ImageOps
from PIL.Image import Image, Resampling
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.errors import DataError, SettingsError
from unmask.randomness import generator, seeded
from unmask.spec import Kind

_BICUBIC = v2.InterpolationMode.BICUBIC
_MARGIN_UP_TO = 224
_TRIES = 10
_MOST = 0.5
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
        _check_flip(self.flip_probability)

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view; its crop and flip depend on the key alone."""
        top, left, height, width, mirrored = self.draw(Size(*image.shape[-2:]), *key)
        view = resize(image[:, top : top + height, left : left + width], size)
        return (view.flip(-1) if mirrored else view,)

    def draw(self, whole: Size, *key: int) -> tuple[int, int, int, int, bool]:
        """Top, left, height and width of the part of an image of this size, and whether it is mirrored."""
        random = generator("cpu", "crop", *key)
        box = draw_box(whole, self.smallest_share, random)
        return *box, torch.rand((), generator=random).item() < self.flip_probability


def _check_flip(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise SettingsError(f"flip_probability must lie between 0 and 1, got {probability}")


def draw_box(
    size: Size, smallest_share: float, random: torch.Generator, largest_share: float = 1.0
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of an image.

    The rule of torchvision's RandomResizedCrop: share of the area and logarithm of the proportions
    are uniform; if ten draws do not fit, the largest part in the middle with allowed proportions.
    """
    for draws in torch.rand(_TRIES, 4, generator=random).tolist():
        area = (
            size.height
            * size.width
            * (smallest_share + draws[0] * (largest_share - smallest_share))
        )
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


@dataclass(frozen=True, kw_only=True)
class MarginCrop:
    """The middle of the image with a margin around it left out: how classifiers are tested.

    At 224 pixels the shorter side is resized to 256 and the middle cut out; above 224 nothing is left
    out, as in MAE's published evaluation.
    """

    share: float = 0.875
    """Side of the crop relative to the resized image's, up to 224 pixels."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingsError(f"share must lie above 0 and at most at 1, got {self.share}")

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view, the same for every key."""
        if min(size) > _MARGIN_UP_TO:
            return (center_crop(image, size),)
        around = Size(*(int(side / self.share) for side in size))
        return (F.center_crop(_covering(image, around), list(size)),)


@dataclass(frozen=True, kw_only=True)
class FixedCrop:
    """A part of fixed size at a random place of the resized image, and a random flip (MAE table 1e, "fixed size").

    At 224 pixels the shorter side is resized to 256.
    """

    share: float = 0.875
    """Side of the crop relative to the resized image's shorter side: 224 of 256."""

    flip_probability: float = 0.5
    """How often to mirror left and right; 0 where sides matter, as in writing."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingsError(f"share must lie above 0 and at most at 1, got {self.share}")
        _check_flip(self.flip_probability)

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view; its place and flip depend on the key alone."""
        random = generator("cpu", "fixed crop", *key)
        whole = _covering(image, Size(*(int(side / self.share) for side in size)))
        top, left = (
            int(torch.randint(whole.shape[axis] - size[axis] + 1, (), generator=random))
            for axis in (-2, -1)
        )
        view = whole[:, top : top + size.height, left : left + size.width]
        mirrored = torch.rand((), generator=random).item() < self.flip_probability
        return (view.flip(-1) if mirrored else view,)


@dataclass(frozen=True, kw_only=True)
class JitteredCrop:
    """As `RandomCrop`, its colours changed (MAE table 1e, "color jit"): worse for MAE, needed by contrastive methods.

    For colour images of bytes. Brightness, contrast, saturation and hue change in any order, by torchvision. The
    paper does not say how strongly; these strengths are DINO's and MoCo v3's.
    """

    smallest_share: float = 0.2
    """Least share of the image's area in a crop; MAE uses 0.2."""

    flip_probability: float = 0.5
    """How often to mirror left and right; 0 where sides matter, as in writing."""

    brightness: float = 0.4
    """Largest change, as a share of it."""

    contrast: float = 0.4
    """Largest change, as a share of it."""

    saturation: float = 0.2
    """Largest change, as a share of it."""

    hue: float = 0.1
    """Largest turn, as a share of the whole circle of colours; at most 0.5."""

    probability: float = 0.8
    """How often colours are changed at all."""

    def __post_init__(self) -> None:
        self.crop()
        for name, most in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise SettingsError(
                    f"{name} must lie between 0 and {most}, got {getattr(self, name)}"
                )
        if not 0 <= self.probability <= 1:
            raise SettingsError(f"probability must lie between 0 and 1, got {self.probability}")

    def crop(self) -> RandomCrop:
        """What is done before colours are changed."""
        return RandomCrop(
            smallest_share=self.smallest_share, flip_probability=self.flip_probability
        )

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view; all of it depends on the key alone.

        Raises:
            DataError: if the pixels are no colour bytes.
        """
        if image.dtype != torch.uint8 or len(image) != 3:
            raise DataError(
                f"colours are changed of images with 3 channels of uint8, and these have {len(image)} of "
                f"{str(image.dtype).removeprefix('torch.')}; choose views:random-crop"
            )
        (view,) = self.crop()(image, size, *key)
        jitter = v2.RandomApply(
            [v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue)],
            self.probability,
        )
        with seeded("jitter", *key):
            return (jitter(view),)


@dataclass(frozen=True, kw_only=True)
class AugmentedCrop:
    """A random part of the image, a random flip, and RandAugment (Cubuk and others, 2020), by timm.

    For grey and colour images of bytes. As in MAE's fine-tuning: two operations of a list of fifteen, each
    done half the time, their strength growing with the magnitude.
    """

    smallest_share: float = 0.08
    """Least share of the image's area in a crop."""

    flip_probability: float = 0.5
    """How often to mirror left and right; 0 where sides matter, as in writing."""

    magnitude: int = 9
    """Strength of the operations, 0 to 10 (MAE table 9)."""

    magnitude_std: float = 0.5
    """Deviation of the strength from one operation to the next (MAE table 9)."""

    def __post_init__(self) -> None:
        self.crop()
        if not 0 <= self.magnitude <= 10:
            raise SettingsError(f"magnitude must lie between 0 and 10, got {self.magnitude}")
        if self.magnitude_std < 0:
            raise SettingsError(f"magnitude_std must not be negative, got {self.magnitude_std}")

    def crop(self) -> RandomCrop:
        """What is done before RandAugment."""
        return RandomCrop(
            smallest_share=self.smallest_share, flip_probability=self.flip_probability
        )

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view; all of it depends on the key alone.

        Raises:
            DataError: if the pixels are no grey or colour bytes.
        """
        channels = len(image)
        if image.dtype != torch.uint8 or channels not in (1, 3):
            raise DataError(
                f"RandAugment is for grey or colour images of bytes, and these have {channels} channels of "
                f"{str(image.dtype).removeprefix('torch.')}; choose views:random-crop"
            )
        (view,) = self.crop()(image, size, *key)
        picture = F.to_pil_image(view.expand(3, -1, -1))
        augment = _rand_augment(self.magnitude, self.magnitude_std, channels, size)
        with seeded("augment", *key):
            picture = augment(picture)
        return (F.pil_to_tensor(picture)[:channels],)


@cache
def _rand_augment(magnitude: int, magnitude_std: float, channels: int, size: Size) -> Any:
    """timm's transform; uncovered corners are filled with ImageNet's mean, or its grey."""
    from timm.data.auto_augment import rand_augment_transform

    fill = tuple(round(255 * mean) for mean in IMAGENET.mean)
    settings = {
        "translate_const": int(0.45 * min(size)),
        "img_mean": fill if channels == 3 else (round(sum(fill) / 3),) * 3,
        "interpolation": Resampling.BICUBIC,
    }
    augment = rand_augment_transform(f"rand-m{magnitude}-mstd{magnitude_std}-inc1", settings)
    for operation in augment.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return augment


def _posterize(picture: Image, bits: int, **_: Any) -> Image:
    """Keep the highest bits. At full strength none: black, as in the published runs; newer Pillows refuse that."""
    return ImageOps.posterize(picture, bits) if bits else picture.point([0] * 256 * 3)


def center_crop(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """Resize until the image covers `size`, then cut out the middle; proportions stay."""
    if image.shape[-2:] == size:
        return image
    return F.center_crop(_covering(image, size), list(size))


def _covering(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """The image resized in its proportions until it just covers `size`."""
    height, width = image.shape[-2:]
    scale = max(size.height / height, size.width / width)
    covering = [max(size.height, round(height * scale)), max(size.width, round(width * scale))]
    return resize(image, Size(*covering))


def resize(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """Bicubic, smoothed where it shrinks; a value is missing where most of what it is made of is."""
    if image.dtype == torch.uint8 or not bool((missing := image.isnan()).any()):
        return F.resize(image, list(size), _BICUBIC, antialias=True)
    weights = F.resize((~missing).to(image.dtype), list(size), _BICUBIC, antialias=True)
    values = F.resize(image.masked_fill(missing, 0.0), list(size), _BICUBIC, antialias=True)
    return torch.where(weights >= _MOST, values / weights, math.nan)


AnyViews = (
    Annotated[RandomCrop, Kind("random-crop")]
    | Annotated[CenterCrop, Kind("center-crop")]
    | Annotated[MarginCrop, Kind("margin-crop")]
    | Annotated[FixedCrop, Kind("fixed-crop")]
    | Annotated[JitteredCrop, Kind("jittered-crop")]
    | Annotated[AugmentedCrop, Kind("augmented-crop")]
)
