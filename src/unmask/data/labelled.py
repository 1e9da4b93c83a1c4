"""Labelled images to learn from and to test on, checked before anything is computed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.annotations import (
    UNKNOWN,
    AnyAnnotations,
    ClassLabels,
    MultiLabels,
    dense_words,
    is_dense,
)
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.image_files import EncodedImages
from unmask.data.labels_file import LabelsFile
from unmask.data.subset import Subset
from unmask.errors import DataError, SettingsError
from unmask.randomness import derive
from unmask.spec import kind_of

TEST_SHARE = 0.2
_OWN_FOLDERS = "the data's own train and test folders"


class Labelled(NamedTuple):
    """Labelled images to learn from and to test on."""

    train: ImageSource
    test: ImageSource
    split: str
    """How the split came about, in words."""
    unlabelled: int = 0
    """How many images are in neither, because nothing is known of them."""


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


def open_labelled(data: AnySource, seed: int, takes: tuple[type, ...] = (ClassLabels,)) -> Labelled:
    """The data's own train and test folders, or a split drawn from the seed.

    `takes` are the kinds of annotations that the caller has a task for.

    Raises:
        SettingsError: if the images' annotations are of another kind than the caller takes.
        DataError: if there are no classes, one alone, or one without images to learn from or to test on.
    """
    train = data.open("train")
    names = train.annotations.names
    _check_kind(train, takes)
    test = _alike(data.open("test"), train) if "test" in data.splits() else None
    if test is not None and test.annotations != train.annotations:
        raise DataError(_other_classes(train.annotations, test.annotations))
    if is_dense(train.annotations):
        return Labelled(train, test, _OWN_FOLDERS) if test else _split_by_image(train, seed)
    if isinstance(train.annotations, MultiLabels):
        return _of_several_classes(train, test, seed)
    left_out = 0
    if isinstance(data, LabelsFile):  # which need not name every image
        left_out = len(train) - len(train := _only_known(train))
        if test is not None:
            left_out += len(test) - len(test := _only_known(test))
    labels = checked_labels(train)
    if test is not None:
        _check_every_class(labels, names, "to learn from")
        _check_every_class(checked_labels(test), names, "to test on")
        return Labelled(train, test, _OWN_FOLDERS, left_out)
    return _split(train, labels, seed)._replace(unlabelled=left_out)


def _check_kind(source: ImageSource, takes: tuple[type, ...]) -> None:
    """Refuse images without labels, or with annotations that the caller has no task for."""
    kind = source.annotations
    if is_dense(kind) and isinstance(kind, takes):
        return
    if is_dense(kind) or (isinstance(kind, MultiLabels) and not isinstance(kind, takes)):
        known = dense_words(kind) if is_dense(kind) else "any number of classes of each image"
        raise SettingsError(
            f"{source.where} comes with {known}, and what is learned here is the one class of each image; "
            "it takes a task of its own to learn them"
        )
    if len(kind.names) < 2:
        raise DataError(
            "evaluation needs labelled images: put each class in a folder of its own (cats/1.jpg, "
            "dogs/1.jpg), or use digits; there must be two classes or more"
        )


def _other_classes(train: AnyAnnotations, test: AnyAnnotations) -> str:
    if isinstance(test, MultiLabels) != isinstance(train, MultiLabels):
        return (
            f"the train images have labels of the kind {kind_of(AnyAnnotations, train)}, and the test images of the "
            f"kind {kind_of(AnyAnnotations, test)}; label both in the same way"
        )
    odd = sorted(set(test.names) ^ set(train.names))
    return f"the train and test folders have different classes; only one has {odd}"


def _split(train: ImageSource, labels: NDArray[np.int64], seed: int) -> Labelled:
    """A share of each class for testing."""
    names = train.annotations.names
    if np.bincount(labels).max() < 2:
        raise DataError("each class has one image, so nothing is left to test on; add more images")
    alone = np.flatnonzero(np.bincount(labels, minlength=len(names)) < 2)
    if len(alone):
        raise DataError(
            f"class {names[alone[0]]!r} has fewer than two images, so none is left to test on; "
            "add more, or give a test folder"
        )
    held_out = draw_share(labels, TEST_SHARE, seed)
    return Labelled(
        Subset(train, np.flatnonzero(~held_out)),
        Subset(train, np.flatnonzero(held_out)),
        f"{TEST_SHARE:.0%} of each class for testing, drawn from seed {seed}",
    )


def _split_by_image(train: ImageSource, seed: int) -> Labelled:
    """A share of the images for testing, whatever is known of them."""
    if len(train) < 2:
        raise DataError("one image alone cannot be divided into train and test; add more images")
    held_out = draw_share(np.zeros(len(train), dtype=np.int64), TEST_SHARE, seed)
    return Labelled(
        Subset(train, np.flatnonzero(~held_out)),
        Subset(train, np.flatnonzero(held_out)),
        f"{TEST_SHARE:.0%} of the images for testing, drawn from seed {seed}",
    )


def _of_several_classes(train: ImageSource, test: ImageSource | None, seed: int) -> Labelled:
    """Images of which something is known: the data's own split, or one drawn from the seed.

    Raises:
        DataError: if no image to learn from, or to test on, belongs to any class.
    """
    if test is not None:
        learning, rows = _known(train), _known(test)
        left_out = len(train) + len(test) - len(learning) - len(rows)
        parts = Subset(train, learning), Subset(test, rows)
        words = _OWN_FOLDERS
    else:
        known = _known(train)
        held_out = draw_share(train.labels()[known], TEST_SHARE, seed)
        left_out = len(train) - len(known)
        parts = Subset(train, known[~held_out]), Subset(train, known[held_out])
        words = f"{TEST_SHARE:.0%} of the images for testing, drawn from seed {seed}"
    for part, use in zip(parts, ("to learn from", "to test on"), strict=True):
        counts = part.labels().sum(0)
        if not counts.any():
            raise DataError(f"no image {use} belongs to any class; label more images")
        if missing := int((counts == 0).sum()):
            words += f"; {missing} of {len(counts)} classes have no image {use}"
    return Labelled(*parts, words, left_out)


def _known(source: ImageSource) -> NDArray[np.int64]:
    """Positions of the images that are labelled."""
    labels = source.labels()
    return np.flatnonzero(labels.reshape(len(labels), -1).min(1) > UNKNOWN)


def _only_known(source: ImageSource) -> ImageSource:
    """The images that are labelled."""
    known = _known(source)
    return source if len(known) == len(source) else Subset(source, known)


def checked_labels(source: ImageSource) -> NDArray[np.int64]:
    """The class of every image.

    Raises:
        DataError: if one has none.
    """
    labels = source.labels()
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
    """A share of each class at random; at least one, and never all, of a class with two or more.

    `labels` is [n], or [n classes] of 0 and 1 (`draw_share_of_several`).
    """
    if labels.ndim > 1:
        return draw_share_of_several(labels, share, seed)
    random = np.random.default_rng(derive("split", seed))
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        chosen[rows[:count]] = True
    return chosen


def draw_share_of_several(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A share of images that belong to any number of classes, about the same share of each class.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): the images of the class with the fewest that are
    not yet drawn go, one by one, to the part that lacks that class the most. Unlike there, a class with two images
    or more is meant to have one in either part at least.
    """
    random = np.random.default_rng(derive("split", seed))
    counts = labels.sum(0)
    testing = np.where(counts > 1, np.maximum(1.0, share * counts), 0.0)
    lacking = np.stack([counts - testing, testing])  # of each class, in either part
    room = np.array([(1 - share) * len(labels), share * len(labels)])
    chosen = np.zeros(len(labels), dtype=bool)
    waiting = np.ones(len(labels), dtype=bool)
    while waiting.any():
        left = labels[waiting].sum(0)
        rarest = int(np.where(left > 0, left, len(labels) + 1).argmin())
        of_class = labels[:, rarest] > 0 if left.any() else waiting
        for row in random.permutation(np.flatnonzero(waiting & of_class)):
            lacks = lacking[:, rarest] if left.any() else room
            part = int(np.lexsort((-room, -lacks))[0])
            chosen[row] = part == 1
            lacking[part] -= labels[row]
            room[part] -= 1
            waiting[row] = False
    return chosen


def draw_few(
    labels: NDArray[np.int64], names: tuple[str, ...], amount: str, seed: int
) -> NDArray[np.int64]:
    """The rows of a few labels of each class, drawn from the seed: "5" of each, "10%" of each, or "all".

    A larger amount holds the images of a smaller one of the same seed.

    Raises:
        SettingsError: if a class has fewer, the amount is none of these, or images belong to several classes.
    """
    if amount == "all":
        return np.arange(len(labels))
    if labels.ndim > 1:
        raise SettingsError(
            f"--labels {amount} draws labels of each class, and these images may belong to several classes at once; "
            "use --labels all"
        )
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


def held_out_rows(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A share of the images at random, for choosing thresholds; `labels` has a row for each image."""
    order = np.random.default_rng(derive("thresholds", seed)).permutation(len(labels))
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order[: round(share * len(labels))]] = True
    return chosen
