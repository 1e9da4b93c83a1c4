"""Names of images: many, in little memory."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Names:
    """File names by position. One block of memory, which loading processes share and never copy."""

    def __init__(self, names: Iterable[str]) -> None:
        self.array = pa.array([os.fsencode(name) for name in names], pa.large_binary())

    @classmethod
    def of(cls, array: pa.LargeBinaryArray) -> "Names":
        """Names that are in such a block already."""
        names = cls(())
        names.array = array
        return names

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, position: int) -> str:
        return os.fsdecode(self.array[position].as_py())

    def rows(self, chosen: NDArray[np.int64]) -> "Names":
        """Some of them."""
        return Names.of(self.array.take(pa.array(chosen)))


def fingerprint(names: Sequence[str] | Names, *numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """A short hash of all names and of some numbers of each, such as its size."""
    digest = hashlib.sha256()
    for position in range(len(names)):
        row = "\0".join(str(column[position]) for column in numbers)
        digest.update(f"{names[position]}\0{row}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
