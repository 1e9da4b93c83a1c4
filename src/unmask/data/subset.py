"""A subset of a source."""

import hashlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from unmask.channels import Values
from unmask.contracts import ImageSource, Sample, Size
from unmask.traits import Noted


class Subset:
    """Some images of a source, by their positions in it."""

    def __init__(self, whole: ImageSource, rows: NDArray[np.int64]) -> None:
        self.whole, self.rows = whole, rows
        self.where, self.channels, self.annotations = whole.where, whole.channels, whole.annotations
        self.values: Values = whole.values
        self.refused = whole.refused
        self.notes = whole.notes if isinstance(whole, Noted) else ()
        self.others: Counter[str] = whole.others
        self.smallest_side, self.in_memory = whole.smallest_side, whole.in_memory
        self.fingerprint, self.state = (
            hashlib.sha256(mark.encode() + rows.astype("<i8").tobytes()).hexdigest()[:16]
            for mark in (whole.fingerprint, whole.state)
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Sample:
        return self.whole[int(self.rows[position])]

    def name(self, position: int) -> str:
        """The image's name in the whole source."""
        return self.whole.name(int(self.rows[position]))

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.whole.labels()[self.rows]

    def typical_size(self) -> Size:
        """The typical size of the whole source."""
        return self.whole.typical_size()
