"""Names of images: many, in little memory, and what they say of classes."""

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


def classes_of(names: Sequence[str] | Names) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and the class of each image: its first folder, where each image lies in one of several.

    Without classes there are no names, and every class is -1.
    """
    firsts = [names[i].partition("/")[::2] for i in range(len(names))]
    tops = sorted({top for top, rest in firsts if rest})
    if len(tops) < 2 or not all(rest for _, rest in firsts):
        return (), np.full(len(names), -1)
    number = {top: place for place, top in enumerate(tops)}
    return tuple(tops), np.array([number[top] for top, _ in firsts])


def classes_of_labels(
    labels: list[str], titles: dict[str, str]
) -> tuple[tuple[str, ...], NDArray[np.int64]] | None:
    """Names and numbers of classes that labels spell, "" being none; numbers keep their order."""
    known = {label for label in labels if label}
    if not known:
        return None
    order = sorted(known, key=int if all(map(str.isdecimal, known)) else str)
    place = {label: number for number, label in enumerate(order)} | {"": -1}
    return (
        tuple(titles.get(label, label) for label in order),
        np.array([place[label] for label in labels]),
    )


def fingerprint(names: Sequence[str] | Names, *numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """A short hash of all names and of some numbers of each, such as its size."""
    digest = hashlib.sha256()
    for position in range(len(names)):
        row = "\0".join(str(column[position]) for column in numbers)
        digest.update(f"{names[position]}\0{row}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
