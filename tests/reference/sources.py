"""Images in memory, some of which cannot be decoded."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import Annotation, AnyAnnotations, ClassLabels
from unmask.contracts import ImageSource, Sample, Size
from unmask.errors import DataError


class Memory(ImageSource):
    """A source of images [n c h w], uint8 or float32; the label of each is its position."""

    def __init__(self, images: Tensor, broken: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.images, self.broken = images, broken
        self.channels = images.shape[1]
        self.values = "uint8" if images.dtype == torch.uint8 else "float32"
        self.annotations = ClassLabels(names=tuple(str(number) for number in range(len(images))))
        self.refused, self.others, self.where, self.in_memory = [], Counter(), "memory", True
        self.smallest_side = min(images.shape[-2:])
        self.fingerprint = self.state = "memory"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Sample:
        if position in self.broken:
            raise DataError(f"image {position} is damaged")
        return Sample(self.images[position], torch.tensor(position))

    def name(self, position: int) -> str:
        return f"{position}.png"

    def labels(self) -> NDArray[np.int64]:
        return np.arange(len(self))

    def typical_size(self) -> Size:
        return Size(*self.images.shape[-2:])


class Annotated(Memory):
    """Pictures of any sizes with annotations of any kind."""

    def __init__(
        self,
        images: Sequence[Tensor],
        kind: AnyAnnotations,
        known: Sequence[Annotation],
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(images[0][None])
        self.images, self.annotations, self.known = images, kind, known
        self.numbers = np.full(len(images), -1) if labels is None else labels

    def __getitem__(self, position: int) -> Sample:
        return Sample(self.images[position], self.known[position])

    def labels(self) -> NDArray[np.int64]:
        return self.numbers
