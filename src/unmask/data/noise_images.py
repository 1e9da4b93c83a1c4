"""Random images in memory, for measurements without data."""

from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.annotations import UNKNOWN, AnyAnnotations, Unlabelled
from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.randomness import generator

_IMAGES = 8


class NoiseImages:
    """A few unlabelled uint8 images of independent random pixels, the same for the same size."""

    where = "noise"
    values: Values = "uint8"
    annotations: AnyAnnotations = Unlabelled()
    in_memory = True

    def __init__(self, size: Size, channels: int) -> None:
        self.size, self.channels = size, channels
        self.pixels = torch.randint(
            0,
            256,
            (_IMAGES, channels, *size),
            dtype=torch.uint8,
            generator=generator("cpu", "noise", *size, channels),
        )
        self.smallest_side = min(size)
        self.fingerprint = self.state = f"noise-{channels}x{size.height}x{size.width}"
        self.refused: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()

    def __len__(self) -> int:
        return _IMAGES

    def __getitem__(self, position: int) -> Sample:
        return Sample(self.pixels[position], None)

    def name(self, position: int) -> str:
        """Its number in the source."""
        return f"noise {position}"

    def labels(self) -> NDArray[np.int64]:
        """Unknown for all images."""
        return np.full(_IMAGES, UNKNOWN)

    def typical_size(self) -> Size:
        """The size of all images."""
        return self.size
