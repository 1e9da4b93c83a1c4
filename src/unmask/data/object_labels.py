"""Labels of images that a Python program holds: classes by number or by name, from lists, pairs and data sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from unmask.annotations import UNKNOWN, ClassLabels, MultiLabels
from unmask.data.labels import Labels, unlabelled
from unmask.data.objects import ByNumber, label_of
from unmask.errors import SettingsError

_MOST_CLASSES = 100_000  # more than any set has; years and ids are larger


def labels_of(values: Sequence[Any], names: Sequence[str] | None) -> Labels:
    """Labels from one value per image: a class by number or by name, 0 or 1 for each of several classes, or None.

    Raises:
        SettingsError: for other values.
    """
    plain: list[Any] = [
        value.tolist() if isinstance(value, Tensor | np.generic | np.ndarray) else value
        for value in values
    ]
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
        numbers = np.array([UNKNOWN if value is None else int(value) for value in plain])
        if names is None and numbers.max() >= _MOST_CLASSES:
            raise SettingsError(
                f"the label {numbers.max()} is no number of a class, which are counted from 0; give names as labels (strings)"
            )
        return Labels(ClassLabels(names=_names(names, int(numbers.max()) + 1)), numbers)
    width = len(known[0]) if isinstance(known[0], list) else 0
    if width and all(isinstance(value, list) and len(value) == width for value in known):
        table = np.array([[UNKNOWN] * width if value is None else value for value in plain])
        if np.isin(table, (UNKNOWN, 0, 1)).all():
            return Labels(MultiLabels(names=_names(names, width)), table.astype(np.int8))
    raise SettingsError(
        f"a label is the number or the name of a class, or 0 or 1 for each of several classes; got {known[0]!r}"
    )


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
