"""Several views of an image, augmented independently, for objectives that compare views."""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Shaped
from PIL import ImageFilter
from torch import Tensor

from unmask.annotations import Annotation, AnyAnnotations, dense_words, is_dense
from unmask.contracts import Sample, Size
from unmask.data.geometry import Placing, moved, moved_pixels, view_of_part
from unmask.data.place_views import TwoLooks
from unmask.data.scaled_views import check_colors
from unmask.data.views import AnyCrops, AnyViews, draw_box
from unmask.errors import SettingsError
from unmask.randomness import generator
from unmask.spec import Kind, kind_of, kinds, within

# Strengths of DINO and MoCo v3.
_BRIGHTNESS = _CONTRAST = 0.4
_SATURATION = 0.2
_HUE = 0.1
_BLUR = (0.1, 2.0)  # smallest and largest standard deviation, in pixels
_MIDDLE = 128


class Changes(NamedTuple):
    """The probability of each augmentation of a view."""

    flip: float
    jitter: float
    gray: float
    blur: float
    solarize: float


@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """Multi-crop: two large crops and several small ones at a lower resolution, with colour augmentation (SwAV; DINO).

    Colour jitter changes brightness and contrast by up to 0.4, saturation by 0.2 and hue by 0.1, in random order. Blur
    is Gaussian with a standard deviation of 0.1 to 2 pixels. Solarisation inverts levels from 128.
    """

    small_count: int = 8
    """Number of small views."""

    small_size: Size = Size(96, 96)
    """Size of a small view in pixels; large views have the recipe's image size."""

    smallest_share: float = 0.05
    """Smallest share of the image's area in a small view."""

    middle_share: float = 0.4
    """Largest share of the image's area in a small view, and smallest share in a large one."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip; 0 if left and right matter, as in text."""

    jitter_probability: float = 0.8
    """Probability of colour jitter: brightness, contrast, saturation and hue."""

    gray_probability: float = 0.2
    """Probability of converting to grey."""

    blur_probabilities: tuple[float, float, float] = (1.0, 0.1, 0.5)
    """Probability of blur for the first large view, the second, and each small view."""

    solarize_probability: float = 0.2
    """Probability of solarising the second large view."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "small_count")
        within(self, "(0, 1]", "smallest_share", "middle_share")
        if self.smallest_share > self.middle_share:
            raise SettingsError(
                f"smallest_share must not be larger than middle_share, got {self.smallest_share} and "
                f"{self.middle_share}"
            )
        _check_probabilities(self)

    def sizes(self, size: Size) -> tuple[Size, ...]:
        """Size of every view in pixels; raises SettingsError if small views are larger than large ones."""
        if self.small_count and (
            self.small_size.height > size.height or self.small_size.width > size.width
        ):
            raise SettingsError(
                f"small crops of {self.small_size} pixels are larger than the image size {size}; choose a smaller "
                f"--views.small-size (DINO uses 96 with 224; half of yours is {size.height // 2}) or a larger --image-size"
            )
        return (size, size, *[self.small_size] * self.small_count)

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """All views, a function of the key.

        Raises:
            DataError: if colours are augmented, but the image is not uint8 grey or colour.
        """
        large, small = (self.middle_share, 1.0), (self.smallest_share, self.middle_share)
        return _views(self, image, size, [large, large] + [small] * self.small_count, *key)


@dataclass(frozen=True, kw_only=True)
class TwoCrops:
    """Two random crops, each with its own colour augmentation (MoCo v3); the strengths are those of `MultiCrop`."""

    smallest_share: float = 0.08
    """Smallest share of the image's area in a view."""

    flip_probability: float = 0.5
    """Probability of a horizontal flip; 0 if left and right matter, as in text."""

    jitter_probability: float = 0.8
    """Probability of colour jitter: brightness, contrast, saturation and hue."""

    gray_probability: float = 0.2
    """Probability of converting to grey."""

    blur_probabilities: tuple[float, float] = (1.0, 0.1)
    """Probability of blur for the first view, and for the second."""

    solarize_probability: float = 0.2
    """Probability of solarising the second view."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "smallest_share")
        _check_probabilities(self)

    def sizes(self, size: Size) -> tuple[Size, ...]:
        """Size of both views in pixels."""
        return (size, size)

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """Both views, a function of the key.

        Raises:
            DataError: if colours are augmented, but the image is not uint8 grey or colour.
        """
        return _views(self, image, size, [(self.smallest_share, 1.0)] * 2, *key)


def _check_probabilities(views: MultiCrop | TwoCrops) -> None:
    within(views, "[0, 1]", "flip_probability", "jitter_probability", "gray_probability")
    within(views, "[0, 1]", "blur_probabilities", "solarize_probability")


def _views(
    spec: MultiCrop | TwoCrops,
    image: Shaped[Tensor, "c h w"],
    size: Size,
    shares: list[tuple[float, float]],
    *key: int,
) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
    """All views of an image; `shares` are the smallest and the largest share of its area in each."""
    random = generator("cpu", "crops", *key)
    views: list[Tensor] = []
    for number, (view_size, share) in enumerate(zip(spec.sizes(size), shares, strict=True)):
        changes = Changes(
            flip=spec.flip_probability,
            jitter=spec.jitter_probability,
            gray=spec.gray_probability,
            blur=spec.blur_probabilities[min(number, len(spec.blur_probabilities) - 1)],
            solarize=spec.solarize_probability if number == 1 else 0.0,
        )
        views.append(_view(image, view_size, *share, changes, random))
    return tuple(views)


def _view(
    image: Shaped[Tensor, "c h w"],
    size: Size,
    least: float,
    most: float,
    changes: Changes,
    random: torch.Generator,
) -> Shaped[Tensor, "c new_h new_w"]:
    """A random crop with a share of the area between `least` and `most`, resized and augmented."""
    whole = Size(*image.shape[-2:])
    view = moved_pixels(image, view_of_part(draw_box(whole, least, random, most), size))
    flip, jitter, gray, blur, solarize = torch.rand(5, generator=random).tolist()
    view = view.flip(-1) if flip < changes.flip else view
    order = torch.randperm(4, generator=random).tolist()
    amounts = torch.rand(5, generator=random).tolist()
    if max(changes[1:]) == 0:
        return view
    from torchvision.transforms.v2 import functional as F

    remedy = (
        "set --views.jitter-probability, --views.gray-probability, --views.blur-probabilities and "
        "--views.solarize-probability to 0"
    )
    check_colors(image, (1, 3), "colour augmentation", remedy)
    picture: Any = F.to_pil_image(view)
    if jitter < changes.jitter:
        picture = _jittered(picture, order, amounts)
    if gray < changes.gray and len(image) == 3:
        picture = F.to_grayscale(picture, num_output_channels=3)
    if blur < changes.blur:
        radius = _BLUR[0] + amounts[4] * (_BLUR[1] - _BLUR[0])
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    if solarize < changes.solarize:
        picture = F.solarize(picture, _MIDDLE)
    return F.pil_to_tensor(picture)


def _jittered(picture: Any, order: list[int], amounts: list[float]) -> Any:
    """The picture with changed brightness, contrast, saturation and hue, applied in this order."""
    from torchvision.transforms.v2 import functional as F

    brightness, contrast, saturation, hue = (2 * amount - 1 for amount in amounts[:4])
    steps = (
        lambda p: F.adjust_brightness(p, 1 + _BRIGHTNESS * brightness),
        lambda p: F.adjust_contrast(p, 1 + _CONTRAST * contrast),
        lambda p: F.adjust_saturation(p, 1 + _SATURATION * saturation),
        lambda p: F.adjust_hue(p, _HUE * hue),
    )
    for number in order:
        picture = steps[number](picture)
    return picture


AnyPretrainingViews = (
    AnyCrops
    | Annotated[MultiCrop, Kind("multi-crop")]
    | Annotated[TwoCrops, Kind("two-crops")]
    | Annotated[TwoLooks, Kind("two-looks")]
)
"""One or several views of an image, at the recipe's image size."""


def sizes_of(views: AnyPretrainingViews | AnyViews, size: Size) -> tuple[Size, ...]:
    """Size of every view in pixels; `size` is that of the first."""
    is_several = isinstance(views, MultiCrop | TwoCrops | TwoLooks)
    return views.sizes(size) if is_several else (size,)


def check_views_carry(views: AnyPretrainingViews | AnyViews, kind: AnyAnnotations) -> None:
    """Refuse views that class maps and boxes cannot follow.

    Raises:
        SettingsError: with the views that they can follow.
    """
    if is_dense(kind) and not isinstance(views, Placing):
        every = AnyPretrainingViews | AnyViews
        able = [name for name, spec in kinds(every).items() if issubclass(spec, Placing)]
        raise SettingsError(
            f"{dense_words(kind)} cannot follow views:{kind_of(every, views)}, which does more than crop, resize and flip; "
            f"choose one of {', '.join(able)}"
        )


def view_of(
    views: AnyPretrainingViews | AnyViews,
    sample: Sample,
    kind: AnyAnnotations,
    size: Size,
    *key: int,
) -> tuple[tuple[Tensor, ...], Annotation]:
    """The views of an image and their annotation; class maps and boxes follow the pixels.

    Raises:
        DataError: if the views do not support the image's channels or values.
        SettingsError: as `check_views_carry`.
    """
    shown = views(sample.image, size, *key)
    if not is_dense(kind):
        return shown, sample.annotation
    check_views_carry(views, kind)
    assert isinstance(views, Placing)
    whole = Size(*sample.image.shape[-2:])
    return shown, moved(sample.annotation, whole, views.geometry(whole, size, *key))
