"""Labelled images to learn from and to test on, checked before anything is computed."""

import hashlib
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.channels import Values
from unmask.contracts import ImageSource, Sample, Size
from unmask.data import AnySource
from unmask.data.encoded import EncodedImages
from unmask.errors import DataError, SettingsError
from unmask.randomness import derive

TEST_SHARE = 0.2


class Labelled(NamedTuple):
    """Labelled images to learn from and to test on."""

    train: ImageSource
    test: ImageSource
    split: str
    """How the split came about, in words."""


class Part:
    """Some images of a source, by their positions in it."""

    def __init__(self, whole: ImageSource, rows: NDArray[np.int64]) -> None:
        self.whole, self.rows = whole, rows
        self.where, self.class_names = whole.where, whole.class_names
        self.channels = whole.channels
        self.values: Values = whole.values
        self.refused = whole.refused
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
        """Its name in the whole."""
        return self.whole.name(int(self.rows[position]))

    def labels(self) -> list[int]:
        """The class of every image."""
        return np.array(self.whole.labels())[self.rows].tolist()

    def typical_size(self) -> Size:
        """The whole's."""
        return self.whole.typical_size()


def _alike(test: ImageSource, train: ImageSource) -> ImageSource:
    """The test images with as many channels as the training images: grey ones alone among colour, or the reverse."""
    if test.channels == train.channels:
        return test
    if isinstance(test, EncodedImages) and train.channels in (1, 3):
        return test.decoded_to(train.channels)
    raise DataError(
        f"the training images have {train.channels} channels and the test images {test.channels}; "
        "both must have as many"
    )


def open_labelled(data: AnySource, seed: int) -> Labelled:
    """The data's own train and test folders, or a split drawn from the seed.

    Raises:
        DataError: if there are no classes, one alone, or one without images to learn from or to test on.
    """
    train = data.open("train")
    if len(train.class_names) < 2:
        raise DataError(
            "evaluation needs labelled images: put each class in a folder of its own (cats/1.jpg, "
            "dogs/1.jpg), or use digits; there must be two classes or more"
        )
    labels = checked_labels(train)
    if "test" in data.splits():
        test = _alike(data.open("test"), train)
        if test.class_names != train.class_names:
            odd = sorted(set(test.class_names) ^ set(train.class_names))
            raise DataError(
                f"the train and test folders have different classes; only one has {odd}"
            )
        _check_every_class(labels, train.class_names, "to learn from")
        _check_every_class(checked_labels(test), train.class_names, "to test on")
        return Labelled(train, test, "the data's own train and test folders")
    if np.bincount(labels).max() < 2:
        raise DataError("each class has one image, so nothing is left to test on; add more images")
    alone = np.flatnonzero(np.bincount(labels, minlength=len(train.class_names)) < 2)
    if len(alone):
        raise DataError(
            f"class {train.class_names[alone[0]]!r} has fewer than two images, so none is left to test on; "
            "add more, or give a test folder"
        )
    held_out = draw_share(labels, TEST_SHARE, seed)
    return Labelled(
        Part(train, np.flatnonzero(~held_out)),
        Part(train, np.flatnonzero(held_out)),
        f"{TEST_SHARE:.0%} of each class for testing, drawn from seed {seed}",
    )


def checked_labels(source: ImageSource) -> NDArray[np.int64]:
    """The class of every image.

    Raises:
        DataError: if one has none.
    """
    labels = np.array(source.labels())
    if (labels < 0).any():
        raise DataError(
            f"{(labels < 0).sum()} of the {len(labels):,} images have no label, the first is "
            f"{source.name(int(np.argmax(labels < 0)))}; label or remove them"
        )
    return labels


def _check_every_class(labels: NDArray[np.int64], names: tuple[str, ...], use: str) -> None:
    counts = np.bincount(labels, minlength=len(names))
    if (counts == 0).any():
        missing = [names[place] for place in np.flatnonzero(counts == 0)]
        raise DataError(
            f"class {missing[0]!r} has no image {use}"
            + (f" (nor have {len(missing) - 1} others)" if len(missing) > 1 else "")
            + "; add some, or remove the class"
        )


def draw_share(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A share of each class at random; at least one, and never all, of a class with two or more."""
    random = np.random.default_rng(derive("split", seed))
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        chosen[rows[:count]] = True
    return chosen


def draw_few(
    labels: NDArray[np.int64], names: tuple[str, ...], amount: str, seed: int
) -> NDArray[np.int64]:
    """The rows of a few labels of each class, drawn from the seed: "5" of each, "10%" of each, or "all".

    A larger amount holds the images of a smaller one of the same seed.

    Raises:
        SettingsError: if a class has fewer, or the amount is none of these.
    """
    if amount == "all":
        return np.arange(len(labels))
    number = amount.removesuffix("%")
    share = amount.endswith("%")
    if not number.isdecimal() or int(number) < 1 or (share and int(number) > 100):
        raise SettingsError(
            f"--labels is a list of numbers of labels of each class, percentages, or all, such as "
            f"1,5,10,1%,10%,all; got {amount!r}"
        )
    random = np.random.default_rng(derive("few labels", seed))
    chosen: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = max(1, round(len(rows) * int(number) / 100)) if share else int(number)
        if count > len(rows):
            raise SettingsError(
                f"--labels {amount} asks for {count} labels of each class, and {names[label]!r} has "
                f"{len(rows)} to learn from; ask for fewer, or all"
            )
        chosen.append(rows[:count])
    return np.sort(np.concatenate(chosen))
