"""Views of an image: crops, flips and colour augmentation. Pixels are not normalised; uint8 stays uint8."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Shaped
from PIL import ImageOps
from PIL.Image import Image, Resampling
from torch import Tensor

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.data.geometry import (
    Box,
    Geometry,
    covering,
    drawn_flip,
    middle,
    moved_pixels,
    one_view,
    trimmed,
    view_of_part,
)
from unmask.data.scaled_views import FittedImage, ScaleJitter, WholeImage, check_colors
from unmask.randomness import generator, seeded
from unmask.spec import Kind, within

_MARGIN_UP_TO = 224  # pixels; MAE's evaluation crops no margin from larger images
_TRIES = 10  # as in torchvision's RandomResizedCrop
_WIDEST = 4 / 3  # largest aspect ratio; the smallest is 3/4, as in torchvision


def _random_geometry(
    self: "JitteredCrop | AugmentedCrop", whole: Size, size: Size, *key: int
) -> Geometry:
    """A random part, perhaps mirrored: the `geometry` of random crops."""
    random = generator("cpu", "crop", *key)
    part = draw_box(whole, self.smallest_share, random)
    return view_of_part(part, size, drawn_flip(self.flip_probability, random))


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Random resized crop and random horizontal flip (MAE table 8)."""

    smallest_share: float = 0.2
    """Smallest share of the image's area in a crop; MAE uses 0.2."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip; 0 if left and right matter, as in text."""

    too_large: Literal["redraw", "clip"] = "redraw"
    """What happens to a drawn part that is higher or wider than the image: another is drawn, as in torchvision, or its
    side is cut to the image's, as in MAE's published linear probe (TensorFlow's rule)."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "smallest_share", usual="MAE uses 0.2")
        within(self, "[0, 1]", "flip_probability")

    __call__ = one_view

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        random = generator("cpu", "crop", *key)
        draw = draw_box if self.too_large == "redraw" else draw_clipped_box
        part = draw(whole, self.smallest_share, random)
        return view_of_part(part, size, drawn_flip(self.flip_probability, random))


def draw_box(
    size: Size, smallest_share: float, random: torch.Generator, largest_share: float = 1.0
) -> Box:
    """A random part of an image.

    As in torchvision's RandomResizedCrop, the share of the area and the logarithm of the aspect ratio are uniform. If
    ten draws do not fit, the result is the largest central part with an allowed aspect ratio.
    """
    for draws in torch.rand(_TRIES, 4, generator=random).tolist():
        share = smallest_share + draws[0] * (largest_share - smallest_share)
        part = _drawn_part(size, share, draws[1])
        if 0 < part.height <= size.height and 0 < part.width <= size.width:
            return _placed(part, size, draws[2], draws[3])
    height = min(size.height, round(size.width * _WIDEST))
    width = min(size.width, round(size.height * _WIDEST))
    return Box((size.height - height) // 2, (size.width - width) // 2, height, width)


def draw_clipped_box(size: Size, smallest_share: float, random: torch.Generator) -> Box:
    """A random part of an image from one draw: a side that is longer than the image's is cut to it.

    So large parts are not rejected, and the mean area is larger than that of `draw_box`: 0.52 instead of 0.43 of an
    image of 375 x 500 pixels with a smallest share of 0.08.
    """
    draws = torch.rand(4, generator=random).tolist()
    part = _drawn_part(size, smallest_share + draws[0] * (1 - smallest_share), draws[1])
    sides = (max(1, min(side, most)) for side, most in zip(part, size, strict=True))
    return _placed(Size(*sides), size, draws[2], draws[3])


def _drawn_part(size: Size, share: float, draw: float) -> Size:
    """Height and width of a share of the area; the draw, from 0 to 1, is the aspect ratio on a logarithmic scale."""
    area = size.height * size.width * share
    ratio = math.exp((2 * draw - 1) * math.log(_WIDEST))
    return Size(round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio)))


def _placed(part: Size, size: Size, down: float, right: float) -> Box:
    """The part at a place in the image; the draws are from 0 to 1."""
    top = int(down * (size.height - part.height + 1))
    return Box(top, int(right * (size.width - part.width + 1)), *part)


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """Resize and centre crop, without randomness."""

    __call__ = one_view

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        return _central(whole, covering(whole, size), size)


@dataclass(frozen=True, kw_only=True)
class SquashedImage:
    """The whole image at the recipe's image size; its aspect ratio is not kept. Without randomness."""

    __call__ = one_view

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        return view_of_part(Box(0, 0, *whole), size)


@dataclass(frozen=True, kw_only=True)
class MarginCrop:
    """Resize and centre crop with a margin: the view for testing classifiers.

    At 224 pixels the shorter side is resized to 256 before the crop. Above 224 pixels there is no margin, as in MAE's
    published evaluation.
    """

    share: float = 0.875
    """Side of the crop relative to that of the resized image, up to 224 pixels."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "share")

    __call__ = one_view

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        return _central(whole, covering(whole, self.outer(size)), size)

    def outer(self, size: Size) -> Size:
        """The size that the image covers before it is cropped to `size`."""
        if min(size) > _MARGIN_UP_TO:
            return size
        return Size(*(int(side / self.share) for side in size))


@dataclass(frozen=True, kw_only=True)
class FixedCrop:
    """A crop of fixed size at a random position of the resized image, and a random flip (MAE table 1e, "fixed size").

    At 224 pixels the shorter side is resized to 256.
    """

    share: float = 0.875
    """Side of the crop relative to the shorter side of the resized image: 224 of 256."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip; 0 if left and right matter, as in text."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "share")
        within(self, "[0, 1]", "flip_probability")

    __call__ = one_view

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        random = generator("cpu", "fixed crop", *key)
        resized = covering(whole, Size(*(int(side / self.share) for side in size)))
        top, left = (
            int(torch.randint(most - least + 1, (), generator=random))
            for most, least in zip(resized, size, strict=True)
        )
        mirrored = drawn_flip(self.flip_probability, random)
        return trimmed(Geometry(Box(0, 0, *whole), resized, Box(top, left, *size), mirrored))


@dataclass(frozen=True, kw_only=True)
class JitteredCrop:
    """`RandomCrop` with colour jitter (MAE table 1e, "color jit"): worse for MAE, needed by contrastive methods.

    For uint8 colour images. torchvision changes brightness, contrast, saturation and hue in random order. The MAE paper
    does not give strengths; the defaults are those of DINO and MoCo v3.
    """

    smallest_share: float = 0.2
    """Smallest share of the image's area in a crop; MAE uses 0.2."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip; 0 if left and right matter, as in text."""

    brightness: float = 0.4
    """Largest relative change of brightness."""

    contrast: float = 0.4
    """Largest relative change of contrast."""

    saturation: float = 0.2
    """Largest relative change of saturation."""

    hue: float = 0.1
    """Largest shift of the hue, as a share of the colour circle; at most 0.5."""

    probability: float = 0.8
    """Probability of colour jitter."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "smallest_share", usual="MAE uses 0.2")
        within(self, "[0, 1]", "flip_probability", "probability")
        within(self, "[0, 1]", "brightness", "contrast", "saturation")
        within(self, "[0, 0.5]", "hue")

    geometry = _random_geometry

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view, a function of the key; raises DataError if the image is not uint8 colour."""
        from torchvision.transforms import v2

        check_colors(image, (3,), "colour jitter", "choose views:random-crop")
        views = one_view(self, image, size, *key)
        jitter = v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue)
        jitter = v2.RandomApply([jitter], self.probability)
        with seeded("jitter", *key):
            return tuple(map(jitter, views))


@dataclass(frozen=True, kw_only=True)
class AugmentedCrop:
    """Random resized crop, random flip, and timm's RandAugment (Cubuk and others, 2020).

    For uint8 grey and colour images. As in MAE's fine-tuning: two of fifteen operations, each applied with probability
    0.5 and a strength that increases with the magnitude. Some rotate, shear or shift the image; class maps and boxes
    cannot follow them.
    """

    smallest_share: float = 0.08
    """Smallest share of the image's area in a crop."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip; 0 if left and right matter, as in text."""

    magnitude: int = 9
    """Strength of the operations, 0 to 10 (MAE table 9)."""

    magnitude_std: float = 0.5
    """Standard deviation of the strength between operations (MAE table 9)."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "smallest_share", usual="MAE uses 0.2")
        within(self, "[0, 1]", "flip_probability")
        within(self, "[0, 10]", "magnitude")
        within(self, "[0, inf)", "magnitude_std")

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view, a function of the key; raises DataError if the image is not uint8 grey or colour."""
        from torchvision.transforms.v2 import functional as F

        check_colors(image, (1, 3), "RandAugment", "choose views:random-crop")
        channels = len(image)
        geometry = _random_geometry(self, Size(*image.shape[-2:]), size, *key)
        view = moved_pixels(image, geometry)
        picture = F.to_pil_image(view.expand(3, -1, -1))
        augment = _rand_augment(self.magnitude, self.magnitude_std, channels, size)
        with seeded("augment", *key):
            picture = augment(picture)
        return (F.pil_to_tensor(picture)[:channels],)


@cache
def _rand_augment(magnitude: int, magnitude_std: float, channels: int, size: Size) -> Any:
    """timm's transform; empty corners are filled with ImageNet's mean colour, or its grey level."""
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
    """Keep the highest bits. Strength 10 keeps none, so the picture is black, as in the published runs; new versions of
    Pillow refuse 0 bits."""
    return ImageOps.posterize(picture, bits) if bits else picture.point([0] * 256 * 3)


def center_crop(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """Resize with the same aspect ratio until the image covers `size`, then crop the centre."""
    return CenterCrop()(image, size)[0]


def _central(whole: Size, resized: Size, size: Size) -> Geometry:
    """The geometry of a centre crop from a resized image."""
    return trimmed(Geometry(Box(0, 0, *whole), resized, middle(resized, size), False))


AnyCrops = (
    Annotated[RandomCrop, Kind("random-crop")]
    | Annotated[CenterCrop, Kind("center-crop")]
    | Annotated[MarginCrop, Kind("margin-crop")]
    | Annotated[FixedCrop, Kind("fixed-crop")]
    | Annotated[JitteredCrop, Kind("jittered-crop")]
    | Annotated[AugmentedCrop, Kind("augmented-crop")]
)
"""One view of an image, at the recipe's image size."""

AnyViews = (
    AnyCrops
    | Annotated[SquashedImage, Kind("squashed-image")]
    | Annotated[WholeImage, Kind("whole-image")]
    | Annotated[FittedImage, Kind("fitted-image")]
    | Annotated[ScaleJitter, Kind("scale-jitter")]
)
"""One view of an image; the last three keep its aspect ratio, so that views differ in size."""
