"""Compact storage for the names of many images."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Names:
    """File names by position, in one block of memory that forked loading processes share without copying."""

    def __init__(self, names: Iterable[str]) -> None:
        self.array = pa.array([os.fsencode(name) for name in names], pa.large_binary())

    @classmethod
    def of(cls, array: pa.LargeBinaryArray) -> "Names":
        """Names from an existing Arrow array."""
        names = cls(())
        names.array = array
        return names

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, position: int) -> str:
        return os.fsdecode(self.array[position].as_py())

    def rows(self, chosen: NDArray[np.int64]) -> "Names":
        """The names of some rows."""
        return Names.of(self.array.take(pa.array(chosen)))


def fingerprint(names: Sequence[str] | Names, *numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """A short hash of all names, with columns of numbers such as file sizes."""
    digest = hashlib.sha256()
    for position in range(len(names)):
        row = "\0".join(str(column[position]) for column in numbers)
        digest.update(f"{names[position]}\0{row}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
