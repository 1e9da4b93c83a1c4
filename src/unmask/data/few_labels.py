"""A few of the training images, drawn from a seed in one way for whole images, class maps and objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.contracts import ImageSource
from unmask.data.annotated import present_in
from unmask.data.draws import draw_few
from unmask.data.labelled import Labelled, Subset


@dataclass(frozen=True, kw_only=True)
class FewLabels:
    """The training images of one run in a series with several amounts of labels and several seeds.

    The seed of the run draws them. The test images are those of the whole series.
    """

    amount: str
    """How many: a number or a percentage of each class, a percentage of dense annotations, or all."""

    split_seed: int
    """Seed of the split, where the data have none."""


def few(
    labelled: Labelled, amount: str, seed: int, classes: NDArray[np.int64] | None = None
) -> Labelled:
    """The same test images, and a few of the training images; see `draw_few`.

    `classes` are those of `classes_of`; if they are not given, class maps are read for it.

    Raises:
        SettingsError: if the amount is not valid for these images.
    """
    if amount == "all":
        return labelled
    train = labelled.train
    classes = classes_of(train) if classes is None else classes
    rows = draw_few(classes, train.annotations.names, amount, seed)
    return labelled._replace(train=Subset(train, rows))


def classes_of(source: ImageSource) -> NDArray[np.int64]:
    """The class of each image [n], or which classes it shows, as 0 and 1 [n classes]."""
    shown = present_in(source)
    return source.labels() if shown is None else shown.astype(np.int64)
