"""Subsets of a source, and labelled training and test images, checked before anything is computed."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.annotations import (
    DENSE,
    UNKNOWN,
    AnyAnnotations,
    ClassLabels,
    ClassMaps,
    MultiLabels,
    ObjectLabels,
    Unlabelled,
    dense_words,
    is_dense,
)
from unmask.channels import Values
from unmask.contracts import ImageSource, Sample, Size
from unmask.data import AnySource
from unmask.data.dense_images import DenseImages
from unmask.data.draws import draw_share
from unmask.data.ground_map import MapTiles
from unmask.data.image_files import EncodedImages
from unmask.data.in_memory import MemoryImages
from unmask.data.label_values import NOT_CLASSES
from unmask.data.labels import folder_labels, renumbered
from unmask.data.labels_file import relabelled
from unmask.data.tiff import BandImages
from unmask.errors import DataError, SettingsError, listed
from unmask.spec import kind_of
from unmask.traits import InFiles, Levelled, Noted

TEST_SHARE = 0.2
NAMED = 5
"""Classes that a message names."""
_OWN_FOLDERS = "the data's own train and test folders"


class Subset:
    """Some images of a source, by their positions in it."""

    def __init__(self, whole: ImageSource, rows: NDArray[np.int64]) -> None:
        self.whole, self.rows = whole, rows
        self.where, self.channels, self.annotations = whole.where, whole.channels, whole.annotations
        self.values: Values = whole.values
        self.refused = whole.refused
        self.notes = whole.notes if isinstance(whole, Noted) else ()
        self.beside: Counter[str] = whole.beside if isinstance(whole, Noted) else Counter()
        self.others: Counter[str] = whole.others
        self.smallest_side, self.in_memory = whole.smallest_side, whole.in_memory
        self.fingerprint, self.state = (
            hashlib.sha256(mark.encode() + rows.astype("<i8").tobytes()).hexdigest()[:16]
            for mark in (whole.fingerprint, whole.state)
        )

    @property
    def levels(self) -> tuple[float, float] | None:
        """See `Levelled`."""
        return self.whole.levels if isinstance(self.whole, Levelled) else None

    def with_levels(self, levels: tuple[float, float] | None) -> "Subset":
        """See `Levelled`."""
        if not isinstance(self.whole, Levelled):
            return self
        return Subset(self.whole.with_levels(levels), self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Sample:
        return self.whole[int(self.rows[position])]

    def file(self, position: int) -> Path | None:
        """See `InFiles`."""
        whole = self.whole
        return whole.file(int(self.rows[position])) if isinstance(whole, InFiles) else None

    def name(self, position: int) -> str:
        """The image's name in the whole source."""
        return self.whole.name(int(self.rows[position]))

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.whole.labels()[self.rows]

    def typical_size(self) -> Size:
        """The typical size of the whole source."""
        return self.whole.typical_size()


class Labelled(NamedTuple):
    """Labelled training and test images."""

    train: ImageSource
    test: ImageSource
    split: str
    """How the images were split, and what is in neither part, in words."""


def read_as_train(test: ImageSource, train: ImageSource) -> ImageSource:
    """The test images with the channels of the training images, and their range of 16-bit values."""
    if isinstance(train, Levelled) and isinstance(test, Levelled) and train.levels is not None:
        test = test.with_levels(train.levels)
    return with_channels(test, train.channels, "the training images have")


def with_channels(source: ImageSource, channels: int, trained_on: str) -> ImageSource:
    """The images with this number of channels: grey is repeated, and colour becomes luma.

    Args:
        source: the images.
        channels: how many the images must have.
        trained_on: who needs them, such as "this classifier was trained on", for the error.

    Raises:
        DataError: if they have another number and are not both grey or colour.
    """
    if source.channels == channels:
        return source
    if isinstance(source, Subset):
        return Subset(with_channels(source.whole, channels, trained_on), source.rows)
    plain = {source.channels, channels} == {1, 3}
    if isinstance(source, EncodedImages) and channels in (1, 3, 4):
        return source.decoded_to(channels)
    if isinstance(source, DenseImages):
        pictures = with_channels(source.pictures, channels, trained_on)
        assert isinstance(pictures, EncodedImages | BandImages)
        return source.with_pictures(pictures)
    if isinstance(source, MemoryImages | MapTiles) and plain and source.values == "uint8":
        return source.decoded_to(channels)
    raise DataError(
        f"{source.where} has images of {source.channels} channels, but {trained_on} images of {channels}"
    )


def open_labelled(data: AnySource, seed: int, takes: tuple[type, ...] = (ClassLabels,)) -> Labelled:
    """The data's own train and test folders, or a split drawn from the seed.

    `takes` are the kinds of annotations that the caller has a task for.

    Raises:
        SettingsError: if the caller does not accept the images' kind of annotations.
        DataError: if there are fewer than two classes, or test images of a class without training images.
    """
    train = data.open("train")
    check_kind(train, takes)
    test = data.open("test") if "test" in data.splits() else None
    if test is not None:
        test = read_as_train(test, train)
    if test is not None and test.annotations != train.annotations:
        test = with_classes_of(train, test)
    if is_dense(train.annotations):
        return _open_dense(train, test, seed)
    if isinstance(train.annotations, MultiLabels):
        return _open_multilabel(train, test, seed)
    unlabelled = len(train) - len(train := only_labelled(train))
    if test is None:
        labelled = _split(train, train.labels(), seed)
    else:
        unlabelled += len(test) - len(test := only_labelled(test))
        _check_trained(train, test)
        labelled = Labelled(train, test, _OWN_FOLDERS)
    words = labelled.split + _absent_in_words(labelled.test)
    if unlabelled:
        words += f"; {unlabelled:,} images without labels are skipped"
    return labelled._replace(split=words)


def check_kind(source: ImageSource, takes: tuple[type, ...]) -> None:
    """Refuse images without labels, or with annotations that the caller has no task for.

    Raises:
        SettingsError: if the annotations are of another kind than `takes`.
        DataError: if there are fewer than two classes.
    """
    kind = source.annotations
    if is_dense(kind) and isinstance(kind, takes):
        return
    if is_dense(kind) or (isinstance(kind, MultiLabels) and not isinstance(kind, takes)):
        words = dense_words(kind) if is_dense(kind) else "any number of labels per image"
        raise SettingsError(
            f"{source.where} comes with {words}, but this task needs exactly one class per image; "
            "use a task for these annotations"
        )
    if not is_dense(kind) and all(issubclass(one, DENSE) for one in takes):
        needs = "class maps" if ClassMaps in takes else "boxes"
        raise SettingsError(
            f"this task needs {needs}, and {source.where} has only what is known of whole images; give pictures with {needs} "
            "(docs/dense.md), or use a task for whole images"
        )
    if len(kind.names) < 2:
        raise DataError(
            f"labelled images of at least two classes are needed, and {source.where} has {_too_few(source)}; put each "
            "class in its own folder (cats/1.jpg, dogs/1.jpg), or name their classes with --labels-file"
            + unread_labels(source)
        )


def unread_labels(source: ImageSource) -> str:
    """What a source says of labels that it did not read, to end an error about missing labels."""
    notes = source.notes if isinstance(source, Noted) else ()
    return "".join(f"; {note}" for note in notes if NOT_CLASSES in note)


def _too_few(source: ImageSource) -> str:
    """The classes of a source that has fewer than two, in words."""
    if source.annotations.names:
        return f"one class, {source.annotations.names[0]}"
    paths = [source.name(row).partition("/") for row in range(len(source))]
    folders = sorted({folder for folder, _, file in paths if file})
    loose = [name for name, _, file in paths if not file]
    if folders and loose:
        return f"{len(loose):,} images outside of its class folders ({listed(folders, NAMED)}), the first is {loose[0]}"
    return f"one class, {folders[0]}" if folders else "no labels"


def with_classes_of(train: ImageSource, test: ImageSource) -> ImageSource:
    """The test images with their classes numbered as in training; training may have more classes.

    Raises:
        DataError: if the test images have no labels, labels of another kind, or classes that training lacks.
    """
    of_test = test.where if test.where != train.where else f"the test split of {test.where}"
    if isinstance(test.annotations, Unlabelled):
        labels = folder_labels([test.name(row) for row in range(len(test))], least=1)
        if isinstance(labels.kind, ClassLabels) and isinstance(test, EncodedImages | BandImages):
            return with_classes_of(train, relabelled(test, labels))
        raise DataError(
            f"the images in {of_test} are unlabelled, and those in {train.where} have {len(train.annotations.names)} "
            f"classes; put each class in its own folder there too, or give {train.where} alone as DATA"
        )
    if type(test.annotations) is not type(train.annotations):
        raise DataError(
            f"the training images have {kind_of(AnyAnnotations, train.annotations)} and the test images "
            f"{kind_of(AnyAnnotations, test.annotations)}; label both in the same way"
        )
    known = train.annotations.names
    if unknown := sorted(set(test.annotations.names) - set(known)):
        raise DataError(
            f"{of_test} has {listed(unknown, NAMED)}, of which {train.where} has no images; add them to the training "
            "images, or remove them from the test images"
        )
    renamed = with_names(test, train.annotations)
    if renamed is None:
        raise DataError(
            f"the classes of {train.where} and of {of_test} have another order; give both the same"
        )
    return renamed


def with_names(source: ImageSource, kind: AnyAnnotations) -> ImageSource | None:
    """The images with the classes of another kind, by name; None if that is not possible."""
    if isinstance(source, DenseImages) and isinstance(kind, ClassMaps | ObjectLabels):
        own = source.annotations
        return source.with_kind(
            replace(own, names=kind.names) if isinstance(own, ObjectLabels) else kind
        )
    if is_dense(kind) or not isinstance(source, EncodedImages | BandImages):
        return None
    return relabelled(source, renumbered(source.image_labels, kind))


def _check_trained(train: ImageSource, test: ImageSource) -> None:
    """Refuse test images of a class that no training image has, as tables may name such classes."""
    numbers = sorted(set(test.labels().tolist()) - set(train.labels().tolist()))
    if numbers:
        raise DataError(
            f"test images in {test.where} have {listed([train.annotations.names[n] for n in numbers], NAMED)}, but no training "
            "image has; add some, or remove the class"
        )
    if not len(test):
        raise DataError(f"no test image in {test.where} has a label; label some")


def _absent_in_words(test: ImageSource) -> str:
    """Which classes are not scored, because they have no test images; "" if all are."""
    names = test.annotations.names
    counts = np.bincount(test.labels(), minlength=len(names))
    absent = [names[number] for number in np.flatnonzero(counts == 0)]
    if not absent:
        return ""
    return f"; no test images of {listed(absent, NAMED)}, so not in per-class figures and balanced accuracy"


def _split(train: ImageSource, labels: NDArray[np.int64], seed: int) -> Labelled:
    """A random split with the same share of each class for testing; a class with one image is only learned from."""
    if not len(labels) or np.bincount(labels).max() < 2:
        raise DataError(
            "each class has only one image, so none is left for testing; add more images"
        )
    return _drawn(train, np.arange(len(train)), labels, "each class", seed)


def _split_by_image(train: ImageSource, seed: int) -> Labelled:
    """A random share of the images for testing, for any kind of annotations."""
    if len(train) < 2:
        raise DataError("one image cannot be split into train and test; add more images")
    return _drawn(train, np.arange(len(train)), np.zeros(len(train), np.int64), "the images", seed)


def _open_dense(train: ImageSource, test: ImageSource | None, seed: int) -> Labelled:
    """The data's own split, or one drawn from the seed; without masks, if only one of its parts has them."""
    if test is None:
        return _split_by_image(train, seed)
    kinds = train.annotations, test.annotations
    if kinds[0] == kinds[1] or not all(isinstance(kind, ObjectLabels) for kind in kinds):
        return Labelled(train, test, _OWN_FOLDERS)
    without = "test" if train.annotations == replace(test.annotations, masks=True) else "training"
    words = f"{_OWN_FOLDERS}; masks are not used, because the {without} images have none"
    return Labelled(_boxes_only(train), _boxes_only(test), words)


def _boxes_only(source: ImageSource) -> ImageSource:
    """The images with boxes and without masks."""
    assert isinstance(source, DenseImages)
    assert isinstance(source.annotations, ObjectLabels)
    return source.with_kind(replace(source.annotations, masks=False))


def _drawn(
    source: ImageSource, rows: NDArray[np.int64], labels: NDArray[np.int64], of: str, seed: int
) -> Labelled:
    """These rows of a source, with a share of them for testing; `labels` are those of the rows."""
    held_out = draw_share(labels, TEST_SHARE, seed)
    return Labelled(
        Subset(source, rows[~held_out]),
        Subset(source, rows[held_out]),
        f"{TEST_SHARE:.0%} of {of} for testing, drawn from seed {seed}",
    )


def _open_multilabel(train: ImageSource, test: ImageSource | None, seed: int) -> Labelled:
    """The labelled images: the data's own split, or one drawn from the seed.

    Raises:
        DataError: if no training image, or no test image, belongs to any class.
    """
    rows = _labelled_rows(train)
    if test is None:
        labelled = _drawn(train, rows, train.labels()[rows], "the images", seed)
    else:
        parts = Subset(train, rows), Subset(test, _labelled_rows(test))
        labelled = Labelled(*parts, _OWN_FOLDERS)
    words = labelled.split
    for part, use in ((labelled.train, "training"), (labelled.test, "test")):
        counts = part.labels().sum(0)
        if not counts.any():
            raise DataError(f"no {use} image belongs to any class; label more images")
        if missing := [part.annotations.names[number] for number in np.flatnonzero(counts == 0)]:
            words += f"; {len(missing)} of {len(counts)} classes have no {use} image ({listed(missing, NAMED)})"
    images = len(train) + (len(test) if test is not None else 0)
    if unlabelled := images - len(labelled.train) - len(labelled.test):
        words += f"; {unlabelled:,} images without labels are skipped"
    return labelled._replace(split=words)


def _labelled_rows(source: ImageSource) -> NDArray[np.int64]:
    """Positions of the labelled images."""
    labels = source.labels()
    return np.flatnonzero(labels.reshape(len(labels), -1).min(1) > UNKNOWN)


def only_labelled(source: ImageSource) -> ImageSource:
    """The labelled images."""
    rows = _labelled_rows(source)
    return source if len(rows) == len(source) else Subset(source, rows)
