"""Views that keep an image's aspect ratio, so that those of a batch differ in size and are padded (`Batch.sizes`)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.contracts import Size
from unmask.data.geometry import Box, Geometry, drawn_flip, one_view, trimmed, view_of_part
from unmask.errors import DataError, SettingsError
from unmask.randomness import generator, seeded
from unmask.spec import within

# Strengths of photometric distortion in SSD (Liu and others, 2016), as ColorJitter's arguments
_DISTORTION = {"brightness": 32 / 255, "contrast": 0.5, "saturation": 0.5, "hue": 18 / 360}


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """The whole image with its aspect ratio, made smaller if it is too large, without crop or randomness.

    Views differ in size, so they are used one at a time or padded (`Batch.sizes`).
    """

    longest_side: int = 1024
    """Largest length of the longer side in pixels; smaller images keep their size. The recipe's image size is not used."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "longest_side")

    __call__ = one_view

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        scale = min(1.0, self.longest_side / max(whole))
        return view_of_part(
            Box(0, 0, *whole), Size(*(max(1, round(side * scale)) for side in whole))
        )


@dataclass(frozen=True, kw_only=True)
class FittedImage:
    """The whole image with its aspect ratio, made smaller or larger to fit the recipe's image size, without randomness."""

    side: Literal["longest", "shortest"] = "longest"
    """Longest: as large as fits inside the image size (ViTDet's tests). Shortest: just large enough to cover it."""

    __call__ = one_view

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        return view_of_part(Box(0, 0, *whole), fitted(whole, size, self.side))


@dataclass(frozen=True, kw_only=True)
class ScaleJitter:
    """Random flip, random scale, and a crop of at most the recipe's image size, for boxes and class maps.

    Large-scale jitter (Ghiasi and others, 2021) as in ViTDet: 0.1 to 2.0 of the size at which the whole image fits inside the
    crop. UperNet's: 0.5 to 2.0 of the size at which the image covers the crop. Images smaller than the crop stay smaller.
    """

    least: float = 0.1
    """Smallest scale."""

    most: float = 2.0
    """Largest scale."""

    side: Literal["longest", "shortest"] = "longest"
    """What scale 1 is: the image just fits inside the image size (longest), or just covers it (shortest)."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip; 0 if left and right matter, as in text."""

    photometric: bool = False
    """Whether brightness, contrast, saturation and hue change too, each with probability 0.5; for uint8 colour images."""

    def __post_init__(self) -> None:
        within(self, "(0, 100]", "least", "most")
        within(self, "[0, 1]", "flip_probability")
        if self.least > self.most:
            raise SettingsError(
                f"least must not be larger than most, got {self.least} and {self.most}"
            )

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """See `data.geometry.Placing`."""
        random = generator("cpu", "scale jitter", *key)
        scale, down, right = torch.rand(3, generator=random).tolist()
        scale = self.least + scale * (self.most - self.least)
        resized = fitted(whole, size, self.side, scale)
        height, width = (min(pair) for pair in zip(resized, size, strict=True))
        top = int(down * (resized.height - height + 1))
        left = int(right * (resized.width - width + 1))
        mirrored = drawn_flip(self.flip_probability, random)
        return trimmed(
            Geometry(Box(0, 0, *whole), resized, Box(top, left, height, width), mirrored)
        )

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """One view, a function of the key; raises DataError if colours are changed, but the image is not uint8 colour."""
        views = one_view(self, image, size, *key)
        if not self.photometric:
            return views
        from torchvision.transforms import v2

        check_colors(image, (3,), "photometric distortion", "set --views.photometric False")
        parts = [v2.ColorJitter(**{name: amount}) for name, amount in _DISTORTION.items()]
        with seeded("photometric", *key):
            distort = v2.Compose([v2.RandomApply([part], 0.5) for part in parts])
            return tuple(map(distort, views))


def fitted(
    whole: Size, size: Size, side: Literal["longest", "shortest"], scale: float = 1.0
) -> Size:
    """The size of an image that just fits inside `size` (longest) or covers it (shortest), times a scale."""
    choose = min if side == "longest" else max
    scale *= choose(b / a for a, b in zip(whole, size, strict=True))
    return Size(*(max(1, round(length * scale)) for length in whole))


def check_colors(image: Tensor, channels: tuple[int, ...], what: str, remedy: str) -> None:
    """Raises DataError if an image is not uint8 with one of these numbers of channels."""
    if image.dtype != torch.uint8 or len(image) not in channels:
        raise DataError(
            f"{what} needs uint8 images with {' or '.join(map(str, channels))} channels, but these have {len(image)} of "
            f"{str(image.dtype).removeprefix('torch.')}; {remedy}"
        )
