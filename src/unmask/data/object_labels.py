"""Labels of images that a Python program holds: classes by number or by name, from lists, pairs and data sets."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from unmask.annotations import UNKNOWN, ClassLabels, MultiLabels
from unmask.data.labels import Labels, unlabelled
from unmask.data.objects import ByNumber, label_of
from unmask.errors import SettingsError


def labels_of(values: Sequence[Any], names: Sequence[str] | None) -> Labels:
    """Labels from one value per image: a class by number or by name, 0 or 1 for each of several classes, or None.

    Numbers count from 0 if they are those of `names`. Else each that occurs is a class with the number as its name, as in
    labels files, so years are classes too. A negative number is not known. 3.0 is 3, and NaN is not known.

    Raises:
        SettingsError: for other values.
    """
    plain = [_plain(value) for value in values]
    known = [value for value in plain if value is not None]
    if not known:
        return unlabelled(len(plain))
    if all(isinstance(value, str) for value in known):
        words = sorted(set(known))
        numbers = {word: number for number, word in enumerate(words)} | {None: UNKNOWN}
        return Labels(
            ClassLabels(names=tuple(words)), np.array([numbers[value] for value in plain])
        )
    if all(isinstance(value, int) for value in known):
        return _numbered([UNKNOWN if value is None else int(value) for value in plain], names)
    width = len(known[0]) if isinstance(known[0], list) else 0
    if width and all(isinstance(value, list) and len(value) == width for value in known):
        table = np.array([[UNKNOWN] * width if value is None else value for value in plain])
        if np.isin(table, (UNKNOWN, 0, 1)).all():
            return Labels(MultiLabels(names=_names(names, width)), table.astype(np.int8))
    raise SettingsError(
        f"a label is the number or the name of a class, or 0 or 1 for each of several classes; got {known[0]!r}"
    )


def _plain(value: Any) -> Any:
    """A label as plain Python has it: a whole float is its integer, and NaN is None."""
    if isinstance(value, Tensor | np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _numbered(values: list[int], names: Sequence[str] | None) -> Labels:
    """Labels from the number of each image's class."""
    if max(values) >= 2**63:
        raise SettingsError(f"the label {max(values)} is too large for a number; give it as text")
    numbers = np.array([max(value, UNKNOWN) for value in values])
    if names is not None and len(names) > numbers.max():
        return Labels(ClassLabels(names=tuple(map(str, names))), numbers)
    found = np.unique(numbers[numbers >= 0])
    places = np.where(numbers >= 0, np.searchsorted(found, numbers), UNKNOWN)
    return Labels(ClassLabels(names=tuple(map(str, found.tolist()))), places)


def _names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is not None and len(names) >= count:
        return tuple(map(str, names))
    return tuple(map(str, range(count)))


def labels_in(entries: ByNumber, wanted: bool) -> Labels:
    """The labels of a list or a data set; those that need every image to be opened only if they are wanted."""
    values = _targets(entries)
    if values is None and isinstance(entries, np.ndarray | Tensor):
        return unlabelled(len(entries))
    if values is None and (wanted or isinstance(entries, list | tuple)):
        values = [label_of(entries[position]) for position in range(len(entries))]
    if values is None:
        return unlabelled(len(entries))
    return labels_of(values, classes_of(entries))


def _targets(entries: Any) -> list[Any] | None:
    """The labels that a data set of torchvision, or a part of it, lists."""
    if isinstance(entries, Subset):
        values = _targets(entries.dataset)
        return None if values is None else [values[position] for position in entries.indices]
    for name in ("targets", "labels"):
        values = getattr(entries, name, None)
        if isinstance(values, Sequence | np.ndarray | Tensor) and len(values) == len(entries):
            return list(values)
    return None


def classes_of(entries: Any) -> Sequence[str] | None:
    """The names of the classes, if a data set of torchvision, or a part of it, has them."""
    if isinstance(entries, Subset):
        return classes_of(entries.dataset)
    names = getattr(entries, "classes", None)
    return names if isinstance(names, Sequence) else None
