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
from unmask.data.geometry import (
    Box,
    Geometry,
    Placing,
    covering,
    middle,
    moved_pixels,
    view_of_part,
    whole_of,
)
from unmask.errors import DataError, SettingsError
from unmask.randomness import generator, seeded
from unmask.spec import Kind

_MARGIN_UP_TO = 224
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
        _check_flip(self.flip_probability)

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view; its crop and flip depend on the key alone."""
        return (_placed(self, image, size, *key),)

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        random = generator("cpu", "crop", *key)
        part = draw_box(whole, self.smallest_share, random)
        return view_of_part(part, size, _drawn_flip(self.flip_probability, random))


def _placed(
    views: Placing, image: Shaped[Tensor, "c h w"], size: Size, *key: int
) -> Shaped[Tensor, "c new_h new_w"]:
    """The view that lies where its key says."""
    whole = Size(image.shape[-2], image.shape[-1])
    return moved_pixels(image, views.geometry(whole, size, *key))


def _drawn_flip(probability: float, random: torch.Generator) -> bool:
    return torch.rand((), generator=random).item() < probability


def _check_flip(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise SettingsError(f"flip_probability must lie between 0 and 1, got {probability}")


def draw_box(
    size: Size, smallest_share: float, random: torch.Generator, largest_share: float = 1.0
) -> Box:
    """A random part of an image.

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
            return Box(top, int(draws[3] * (size.width - width + 1)), height, width)
    height = min(size.height, round(size.width * _WIDEST))
    width = min(size.width, round(size.height * _WIDEST))
    return Box((size.height - height) // 2, (size.width - width) // 2, height, width)


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """The middle of the image, resized; nothing is drawn."""

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view, the same for every key."""
        return (_placed(self, image, size, *key),)

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        return _central(whole, covering(whole, size), size)


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
        return (_placed(self, image, size, *key),)

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        around = size
        if min(size) <= _MARGIN_UP_TO:
            around = Size(*(int(side / self.share) for side in size))
        return _central(whole, covering(whole, around), size)


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
        return (_placed(self, image, size, *key),)

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        random = generator("cpu", "fixed crop", *key)
        resized = covering(whole, Size(*(int(side / self.share) for side in size)))
        top, left = (
            int(torch.randint(most - least + 1, (), generator=random))
            for most, least in zip(resized, size, strict=True)
        )
        mirrored = _drawn_flip(self.flip_probability, random)
        return Geometry(whole_of(whole), resized, Box(top, left, *size), mirrored)


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
        view = _placed(self, image, size, *key)
        jitter = v2.RandomApply(
            [v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue)],
            self.probability,
        )
        with seeded("jitter", *key):
            return (jitter(view),)

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`; colours stay where they are."""
        return self.crop().geometry(whole, size, *key)


@dataclass(frozen=True, kw_only=True)
class AugmentedCrop:
    """A random part of the image, a random flip, and RandAugment (Cubuk and others, 2020), by timm.

    For grey and colour images of bytes. As in MAE's fine-tuning: two operations of a list of fifteen, each
    done half the time, their strength growing with the magnitude. Some of them turn, shear or shift the image, which
    class maps and boxes do not follow.
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


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """All of the image in its proportions, made smaller if it is too large; nothing is cut, nothing is drawn.

    Views differ in size with their images: they are fed one at a time, or padded (`Batch.sizes`).
    """

    longest_side: int = 1024
    """Most pixels of the longer side; smaller images keep their size. The recipe's image size is not used."""

    def __post_init__(self) -> None:
        if self.longest_side < 1:
            raise SettingsError(f"longest_side must be at least 1 pixel, got {self.longest_side}")

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view, the same for every size and key."""
        return (_placed(self, image, size, *key),)

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        scale = min(1.0, self.longest_side / max(whole))
        return view_of_part(whole_of(whole), Size(*(max(1, round(side * scale)) for side in whole)))


def center_crop(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """Resize until the image covers `size`, then cut out the middle; proportions stay."""
    return _placed(CenterCrop(), image, size)


def _central(whole: Size, resized: Size, size: Size) -> Geometry:
    """The middle of a resized image."""
    return Geometry(whole_of(whole), resized, middle(resized, size), False)


AnyCrops = (
    Annotated[RandomCrop, Kind("random-crop")]
    | Annotated[CenterCrop, Kind("center-crop")]
    | Annotated[MarginCrop, Kind("margin-crop")]
    | Annotated[FixedCrop, Kind("fixed-crop")]
    | Annotated[JitteredCrop, Kind("jittered-crop")]
    | Annotated[AugmentedCrop, Kind("augmented-crop")]
)
"""One view of an image, of the size that the recipe gives."""

AnyViews = AnyCrops | Annotated[WholeImage, Kind("whole-image")]
"""One view of an image."""
