"""Statistics of image channels: to normalise pixels, and to show them as pictures."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.errors import DataError, SettingsError

Values = Literal["uint8", "float32"]
"""What the pixels of images are: bytes, or numbers in the data's own units."""


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel; uint8 pixels are divided by 255 first, others are not scaled."""

    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Mean, standard deviation and display range of each channel, in the units of `Statistics`."""

    mean: tuple[float, ...]
    """Mean of each channel."""

    std: tuple[float, ...]
    """Standard deviation of each channel."""

    low: tuple[float, ...]
    """Value of each channel that pictures show as black."""

    high: tuple[float, ...]
    """Value of each channel that pictures show as white."""

    values: Values = "uint8"
    """Type of the pixels: uint8, divided by 255, or float32 in the units of the data."""

    levels: tuple[float, float] | None = (0.0, 65535.0)
    """The values of 16-bit pictures that are read as 0 and 255; None if there were no such pictures."""

    source: str
    """Where the numbers come from, in words."""

    def __post_init__(self) -> None:
        counts = {name: len(getattr(self, name)) for name in ("mean", "std", "low", "high")}
        if len(set(counts.values())) != 1 or not self.mean:
            raise SettingsError(
                f"statistics need a mean, std, low and high for every channel, got {counts}"
            )
        if not all(0 < std < float("inf") for std in self.std):
            raise SettingsError(f"std must be above 0 and finite, got {list(self.std)}")

    def tensors(self) -> Statistics:
        """Mean and standard deviation as tensors, for normalisation."""
        return Statistics(torch.tensor(self.mean), torch.tensor(self.std))

    def stretched(self, pixels: Tensor) -> Tensor:
        """Pixels [... c h w] scaled for display: 0 is black and 1 is white."""
        low, high = (torch.tensor(ends).to(pixels.device) for ends in (self.low, self.high))
        values = pixels / 255 if pixels.dtype == torch.uint8 else pixels
        return (values - low[:, None, None]) / (high - low)[:, None, None]

    def in_units(self, image: Tensor) -> Tensor:
        """An image with the pixel type of these statistics: DataError if that is uint8 and the image's is not."""
        if self.values == "uint8" and image.dtype != torch.uint8:
            dtype = str(image.dtype).removeprefix("torch.")
            raise DataError(f"pixels are {dtype}, but the model was trained on uint8")
        return image.float() if self.values == "float32" else image


IMAGENET = ChannelStatistics(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    low=(0.0, 0.0, 0.0),
    high=(1.0, 1.0, 1.0),
    levels=None,
    source="ImageNet's customary values",
)
"""The usual values for RGB photographs, as in MAE. `source` is part of saved runs, so its words stay."""
