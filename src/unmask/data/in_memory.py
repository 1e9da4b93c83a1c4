"""Small sets of images in memory: handwritten digits, and noise for measurements without data."""

from collections import Counter
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import ClassLabels
from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.labels import Labels, unlabelled
from unmask.randomness import generator

_TEST_EVERY = 5
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow
_NOISE_IMAGES = 8


def to_channels(
    pixels: Shaped[Tensor, "*b old h w"], channels: int
) -> Shaped[Tensor, "*b new h w"]:
    """Grey repeated in three channels, or colour, which must be uint8, as luma."""
    if channels != 1:
        return pixels.expand(*pixels.shape[:-3], channels, -1, -1)
    weights = torch.tensor(_LUMA)[:, None, None]
    return (pixels * weights).sum(-3, keepdim=True).round().to(torch.uint8)


class MemoryImages:
    """uint8 images of one size, all decoded."""

    values: Values = "uint8"
    in_memory = True

    def __init__(
        self,
        where: str,
        fingerprint: str,
        names: list[str],
        pixels: UInt8[Tensor, "n c h w"],
        labels: Labels,
    ) -> None:
        self.where, self.pixels = where, pixels
        self._names, self._labels = names, labels
        self.annotations = labels.kind
        self.fingerprint = self.state = fingerprint
        self.channels, self._size = pixels.shape[1], Size(*pixels.shape[2:])
        self.smallest_side = min(self._size)
        self.refused: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()

    def decoded_to(self, channels: int) -> "MemoryImages":
        """The same images with grey (1) repeated in three channels, or colour (3) as luma."""
        other = copy(self)
        other.channels = channels
        other.pixels = to_channels(self.pixels, channels)
        return other

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, position: int) -> Sample:
        return Sample(self.pixels[position], self._labels.annotation(position))

    def name(self, position: int) -> str:
        """What it is, and its number."""
        return self._names[position]

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self._labels.numbers()

    def typical_size(self) -> Size:
        """The size of all images."""
        return self._size


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998); nothing to download."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test"): every fifth image of each digit is a test image."""
        return ("train", "test")

    def open(self, split: str = "train") -> MemoryImages:
        """The 1,442 training images, or the 355 test images; their 17 grey levels are spread over 0 to 255."""
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        rank = np.zeros(len(labels), dtype=int)  # of each image among the images of its digit
        for digit in range(10):
            rank[labels == digit] = np.arange((labels == digit).sum())
        testing = rank % _TEST_EVERY == _TEST_EVERY - 1
        numbers = np.flatnonzero(testing if split == "test" else ~testing)
        levels = np.round(values[numbers] * (255 / 16)).astype(np.uint8)
        return MemoryImages(
            "scikit-learn's digits",
            f"scikit-learn-digits-{split}",
            [f"digit {number}" for number in numbers],
            torch.from_numpy(levels).reshape(-1, 1, 8, 8),
            Labels(ClassLabels(names=tuple("0123456789")), labels[numbers]),
        )


def noise_images(size: Size, channels: int) -> MemoryImages:
    """A few unlabelled images of independent random pixels, the same for the same size."""
    shape, random = (_NOISE_IMAGES, channels, *size), generator("cpu", "noise", *size, channels)
    return MemoryImages(
        "noise",
        f"noise-{channels}x{size.height}x{size.width}",
        [f"noise {number}" for number in range(_NOISE_IMAGES)],
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=random),
        unlabelled(_NOISE_IMAGES),
    )
