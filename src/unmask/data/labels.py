"""Labels of whole images: the classes that folders, words or lists of words name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.annotations import (
    UNKNOWN,
    Annotation,
    AnyAnnotations,
    ClassLabels,
    MultiLabels,
    Unlabelled,
)
from unmask.data.names import Names

SEPARATOR = "\x1f"
"""ASCII's unit separator, which stands before each class where one word holds several."""


class Labels(NamedTuple):
    """What is known of the classes of some images."""

    kind: AnyAnnotations
    values: NDArray[np.signedinteger]
    """The class of each image, [n], or 0 or 1 for each of several classes, [n classes]; -1 where it is
    not known. Of several classes int8, since there may be many."""

    def rows(self, chosen: NDArray[np.int64]) -> "Labels":
        """Those of some images."""
        return Labels(self.kind, self.values[chosen])

    def numbers(self) -> NDArray[np.int64]:
        """The values as `ImageSource.labels` gives them."""
        return self.values.astype(np.int64)

    def annotation(self, position: int) -> Annotation:
        """What is known of an image, as `annotations` has it for each kind."""
        if isinstance(self.kind, ClassLabels):
            return torch.tensor(int(self.values[position]))
        if isinstance(self.kind, MultiLabels):
            return torch.from_numpy(self.values[position].astype(np.float32))
        return None


def unlabelled(count: int) -> Labels:
    """Of so many images nothing is known."""
    return Labels(Unlabelled(), np.full(count, UNKNOWN))


def folder_labels(names: Sequence[str] | Names) -> Labels:
    """The first folder in each name is the class, where each image lies in one of several folders."""
    firsts = [names[i].partition("/")[::2] for i in range(len(names))]
    tops = sorted({top for top, rest in firsts if rest})
    if len(tops) < 2 or not all(rest for _, rest in firsts):
        return unlabelled(len(names))
    number = {top: place for place, top in enumerate(tops)}
    return Labels(ClassLabels(names=tuple(tops)), np.array([number[top] for top, _ in firsts]))


def word_labels(words: Sequence[str], titles: Mapping[str, str]) -> Labels | None:
    """The classes that words name, "" being unknown; None if no image has one.

    One word of several classes (`as_word`) gives all images any number of classes. Classes are in the order of
    their words, numbers by value; `titles` are the names of words.
    """
    known = {word for word in words if word}
    if not known:
        return None
    if any(word.startswith(SEPARATOR) for word in known):
        lists = [words_of(word) if word else None for word in words]
        order = in_order_of_value({word for several in lists for word in several or ()})
        names = tuple(titles.get(word, word) for word in order)
        return several_labels(lists, order)._replace(kind=MultiLabels(names=names))
    order = in_order_of_value(known)
    place = {word: number for number, word in enumerate(order)} | {"": UNKNOWN}
    names = tuple(titles.get(word, word) for word in order)
    return Labels(ClassLabels(names=names), np.array([place[word] for word in words]))


def several_labels(lists: Sequence[Sequence[str] | None], names: Sequence[str]) -> Labels:
    """Any number of classes of each image; None where they are not known."""
    place = {name: number for number, name in enumerate(names)}
    values = np.zeros((len(lists), len(names)), dtype=np.int8)
    for row, several in zip(values, lists, strict=True):
        row[:] = 0 if several is not None else UNKNOWN
        row[[place[name] for name in several or ()]] = 1
    return Labels(MultiLabels(names=tuple(names)), values)


def as_word(classes: Iterable[object]) -> str:
    """Several classes, or none, as one word."""
    return SEPARATOR + SEPARATOR.join(str(one) for one in classes)


def words_of(word: str) -> list[str]:
    """The classes in a word."""
    return [one for one in word.split(SEPARATOR) if one]


def in_order_of_value(words: Iterable[str]) -> list[str]:
    """Words in their order; numbers by their value, if all are."""
    words = set(words)
    return sorted(words, key=int if all(map(str.isdecimal, words)) else str)
