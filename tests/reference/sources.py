"""Images in memory, some of which cannot be decoded."""

from collections import Counter

import torch
from torch import Tensor

from unmask.contracts import ImageSource, Sample, Size
from unmask.errors import DataError


class Memory(ImageSource):
    """A source of images [n c h w], uint8 or float32; the label of each is its position."""

    def __init__(self, images: Tensor, broken: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.images, self.broken = images, broken
        self.channels = images.shape[1]
        self.values = "uint8" if images.dtype == torch.uint8 else "float32"
        self.class_names = ()
        self.refused, self.others, self.where, self.in_memory = [], Counter(), "memory", True
        self.smallest_side = min(images.shape[-2:])
        self.fingerprint = self.state = "memory"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Sample:
        if position in self.broken:
            raise DataError(f"image {position} is damaged")
        return Sample(self.images[position], position)

    def name(self, position: int) -> str:
        return f"{position}.png"

    def labels(self) -> list[int]:
        return list(range(len(self)))

    def typical_size(self) -> Size:
        return Size(*self.images.shape[-2:])
