"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries (Alpaydin and Kaynak, 1998)."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from unmask.contracts import Sample, Size


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Scikit-learn's handwritten digits: always there, nothing to download."""

    def splits(self) -> tuple[str, ...]:
        """Only ("train",): everything."""
        return ("train",)

    def open(self, split: str = "train") -> "DigitImages":
        """All digits."""
        return DigitImages()


class DigitImages:
    """Digits in memory, their 17 grey levels spread over 0 to 255."""

    channels = 1
    class_names = tuple("0123456789")
    smallest_side = 8
    fingerprint = "scikit-learn-digits"

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        levels = np.round(pixels * (255 / 16)).astype(np.uint8)
        self.pixels = torch.from_numpy(levels).reshape(-1, 1, 8, 8)
        self._labels = labels.tolist()
        self.refused: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position: int) -> Sample:
        return Sample(self.pixels[position], self._labels[position])

    def name(self, position: int) -> str:
        """The digit's number in the set."""
        return f"digit {position}"

    def labels(self) -> list[int]:
        """The digit each image shows."""
        return self._labels

    def typical_size(self) -> Size:
        """8 x 8."""
        return Size(8, 8)
