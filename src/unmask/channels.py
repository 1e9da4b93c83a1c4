"""What is known of the values of an image's channels: what pixels are normalised with, and drawn by."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.errors import DataError, SettingsError

Values = Literal["uint8", "float32"]
"""What the pixels of images are: bytes, or numbers in the data's own units."""


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel: of uint8 pixels counted as 0 to 1, of others as they are."""

    mean: Float[Tensor, "c"]
    std: Float[Tensor, "c"]


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """What is known of the values of each channel, in the units of `Statistics`."""

    mean: tuple[float, ...]
    """Mean of each channel."""

    std: tuple[float, ...]
    """Standard deviation of each channel."""

    low: tuple[float, ...]
    """Where a picture of the channel is black."""

    high: tuple[float, ...]
    """Where a picture of the channel is white."""

    values: Values = "uint8"
    """What pixels these are of: bytes, counted as 0 to 1, or numbers in the data's own units."""

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
        """Mean and deviation, to normalise with."""
        return Statistics(torch.tensor(self.mean), torch.tensor(self.std))

    def stretched(self, pixels: Tensor) -> Tensor:
        """Pixels [... c h w] as a picture shows them: 0 is black and 1 is white."""
        low, high = (torch.tensor(ends).to(pixels.device) for ends in (self.low, self.high))
        values = pixels / 255 if pixels.dtype == torch.uint8 else pixels
        return (values - low[:, None, None]) / (high - low)[:, None, None]

    def in_units(self, image: Tensor) -> Tensor:
        """An image as the pixels these statistics are of; bytes may stand for numbers.

        Raises:
            DataError: if numbers would have to stand for bytes.
        """
        if self.values == "uint8" and image.dtype != torch.uint8:
            raise DataError(
                f"pixels of type {str(image.dtype).removeprefix('torch.')} where uint8 was trained on"
            )
        return image.float() if self.values == "float32" else image


IMAGENET = ChannelStatistics(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    low=(0.0, 0.0, 0.0),
    high=(1.0, 1.0, 1.0),
    source="ImageNet's customary values",
)
"""The customary values for RGB photographs, as in MAE."""
