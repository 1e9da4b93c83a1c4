"""Names of images, and labels of whole images from folder names, words or lists of words."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from unmask.annotations import (
    UNKNOWN,
    Annotation,
    Annotations,
    AnyAnnotations,
    ClassLabels,
    MultiLabels,
    Unlabelled,
)
from unmask.errors import DataError

SEPARATOR = "\x1f"
"""ASCII's unit separator. It precedes each class in a word that encodes several classes."""

_LARGEST = 2**31  # bytes of multi-label labels
_NUMBER = re.compile(
    r"(-?[0-9]{1,18})(\.0+)?"
)  # any number that int64 holds, also as text of a float


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


class Labels(NamedTuple):
    """The class labels of some images."""

    kind: AnyAnnotations
    values: NDArray[np.signedinteger]
    """The class of each image, [n], or 0 or 1 for each class, [n classes]; -1 if it is not known. The second form is
    int8, because there may be many classes."""

    def rows(self, chosen: NDArray[np.int64]) -> "Labels":
        """The labels of some images."""
        return Labels(self.kind, self.values[chosen])

    def numbers(self) -> NDArray[np.int64]:
        """The values as `ImageSource.labels` returns them."""
        return self.values.astype(np.int64)

    def annotation(self, position: int) -> Annotation:
        """The annotation of an image, in the form of `unmask.annotations`."""
        if isinstance(self.kind, ClassLabels):
            return torch.tensor(int(self.values[position]))
        if isinstance(self.kind, MultiLabels):
            return torch.from_numpy(self.values[position].astype(np.float32))
        return None

    def collated(self, positions: Sequence[int]) -> Annotations:
        """The annotations of a batch of images."""
        return self.kind.collate([self.annotation(position) for position in positions])


def unlabelled(count: int) -> Labels:
    """Labels of `count` images without labels."""
    return Labels(Unlabelled(), np.full(count, UNKNOWN))


def folder_labels(names: Sequence[str] | Names, least: int = 2) -> Labels:
    """Top-level folders as classes, if every image is in one of two (`least`) or more; else no labels."""
    paths = [names[i].partition("/")[::2] for i in range(len(names))]
    folders = sorted({folder for folder, file in paths if file})
    if len(folders) < least or not all(file for _, file in paths):
        return unlabelled(len(names))
    number = {folder: i for i, folder in enumerate(folders)}
    return Labels(
        ClassLabels(names=tuple(folders)), np.array([number[folder] for folder, _ in paths])
    )


def word_labels(words: Sequence[str], titles: Mapping[str, str]) -> Labels | None:
    """Labels from one word per image, "" if it is not known; None if no image has a label.

    If one word encodes several classes (`as_word`), the labels are multi-label. Classes are sorted by word, numbers by
    value. If all are numbers, 3.0 is 3 and nan is not known. `titles` maps words to class names.
    """
    numbers = _as_numbers(words)
    words = [numbers.get(word, word) for word in words]
    titles = {numbers.get(word, word): title for word, title in titles.items()}
    known = {word for word in words if word}
    if not known:
        return None
    if any(word.startswith(SEPARATOR) for word in known):
        lists = [words_of(word) if word else None for word in words]
        order = in_order_of_value({word for several in lists for word in several or ()})
        return several_labels(lists, order, [titles.get(word, word) for word in order])
    order = in_order_of_value(known)
    index = {word: number for number, word in enumerate(order)} | {"": UNKNOWN}
    names = tuple(titles.get(word, word) for word in order)
    return Labels(ClassLabels(names=names), np.array([index[word] for word in words]))


def several_labels(
    lists: Sequence[Sequence[str] | None], words: Iterable[str], names: Sequence[str]
) -> Labels:
    """Multi-label labels from a list of words per image, None if not known; `words` and `names` are those of the classes.

    Raises:
        DataError: if there are too many classes for a table of images and classes.
    """
    if len(lists) * len(names) > _LARGEST:
        raise DataError(f"{len(names):,} classes of {len(lists):,} images are too many for labels")
    index = {word: number for number, word in enumerate(words)}
    values = np.zeros((len(lists), len(names)), dtype=np.int8)
    for row, several in zip(values, lists, strict=True):
        row[:] = 0 if several is not None else UNKNOWN
        row[[index[word] for word in several or ()]] = 1
    return Labels(MultiLabels(names=tuple(names)), values)


def renumbered(labels: Labels, kind: AnyAnnotations) -> Labels:
    """The labels with the classes of another kind, by name; classes that it lacks become unknown."""
    place = {name: number for number, name in enumerate(kind.names)}
    numbers = np.array([place.get(name, UNKNOWN) for name in labels.kind.names] + [UNKNOWN])
    if labels.values.ndim == 1:
        return Labels(kind, numbers[labels.values])  # the last number is that of -1
    values = np.zeros((len(labels.values), len(kind.names)), labels.values.dtype)
    values[labels.values.min(1, initial=0) < 0] = UNKNOWN
    known = numbers[:-1] >= 0
    values[:, numbers[:-1][known]] = labels.values[:, known]
    return Labels(kind, values)


def as_word(classes: Iterable[object]) -> str:
    """Any number of classes encoded as one word."""
    return SEPARATOR + SEPARATOR.join(str(name) for name in classes)


def words_of(word: str) -> list[str]:
    """The classes encoded in a word."""
    return [name for name in word.split(SEPARATOR) if name]


def in_order_of_value(words: Iterable[str]) -> list[str]:
    """Words sorted as text, or by value if all are whole numbers."""
    ordered = sorted(set(words))
    return sorted(ordered, key=int) if all(map(_is_whole, ordered)) else ordered


def _is_whole(word: str) -> bool:
    match = _NUMBER.fullmatch(word)
    return match is not None and match[2] is None


def _as_numbers(words: Sequence[str]) -> dict[str, str]:
    """The words that change if all classes are numbers: 3.0 becomes 3, and nan is not known."""
    different = {word for word in set(words) if word}
    classes = {one for word in different for one in words_of(word)}
    matches = {one: _NUMBER.fullmatch(one) for one in classes if one.lower() != "nan"}
    if not matches or not all(matches.values()):
        return {}
    plain = {one: match[1] for one, match in matches.items() if match}
    changed: dict[str, str] = {}
    for word in different:
        numbers = [plain[one] for one in words_of(word) if one in plain]
        several = word.startswith(SEPARATOR) and (numbers or word == SEPARATOR)
        changed[word] = as_word(numbers) if several else "".join(numbers)
    return changed
