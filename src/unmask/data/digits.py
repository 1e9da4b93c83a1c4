"""The 1,797 handwritten digits of 8 x 8 pixels in scikit-learn (Alpaydin and Kaynak, 1998)."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.annotations import AnyAnnotations, ClassLabels
from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.labels import Labels

_TEST_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Scikit-learn's handwritten digits: installed with it, nothing to download."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test"): every fifth image of each digit is a test image."""
        return ("train", "test")

    def open(self, split: str = "train") -> "DigitImages":
        """The 1,442 training images, or the 355 test images."""
        return DigitImages(split)


class DigitImages:
    """Digits in memory, their 17 grey levels spread over 0 to 255."""

    where = "scikit-learn's digits"
    channels = 1
    values: Values = "uint8"
    annotations: AnyAnnotations = ClassLabels(names=tuple("0123456789"))
    smallest_side = 8
    in_memory = True

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        rank = np.zeros(len(labels), dtype=int)  # of each image among the images of its digit
        for digit in range(10):
            rank[labels == digit] = np.arange((labels == digit).sum())
        testing = rank % _TEST_EVERY == _TEST_EVERY - 1
        self._numbers = np.flatnonzero(testing if split == "test" else ~testing)
        levels = np.round(values[self._numbers] * (255 / 16)).astype(np.uint8)
        self.pixels = torch.from_numpy(levels).reshape(-1, 1, 8, 8)
        self._labels = Labels(self.annotations, labels[self._numbers])
        self.fingerprint = self.state = f"scikit-learn-digits-{split}"
        self.refused: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: int) -> Sample:
        return Sample(self.pixels[position], self._labels.annotation(position))

    def name(self, position: int) -> str:
        """The digit's number in scikit-learn's set."""
        return f"digit {self._numbers[position]}"

    def labels(self) -> NDArray[np.int64]:
        """The digit that each image shows."""
        return self._labels.numbers()

    def typical_size(self) -> Size:
        """8 x 8."""
        return Size(8, 8)
