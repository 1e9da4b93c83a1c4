"""Labels files that lie beside the images and are used without being asked for, as in Hugging Face's imagefolder layout.

They are called labels or metadata, and lie in the folder of the images or in that of each split. A file is used only if it
fits the images; else there is a sentence that says why not.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from unmask.annotations import UNKNOWN, Unlabelled
from unmask.contracts import ImageSource
from unmask.data import AnySource, LabelsFile
from unmask.data.labels_file import ImagesWithoutLabels, read_labels, rows_of
from unmask.data.labels_file_table import JSON_LINES
from unmask.data.walk import files_in
from unmask.errors import DataError
from unmask.spec import kinds

NO_FILE = "none"
"""The value of --labels-file for labels from no file."""

_NAMES = ("labels", "metadata")
_ENDINGS = (".csv", JSON_LINES)
_LEAST_MATCHED = 0.5  # share of rows that must name an image
_MOST_CLASSES = 0.5  # classes for each labelled image; captions have nearly one


class Beside(NamedTuple):
    """Images, with labels from a file beside them if one fits."""

    data: AnySource
    notes: tuple[str, ...]
    """Which file is used, and which are not."""


def with_labels_beside(data: AnySource) -> Beside:
    """The images with labels from the first file beside them that fits; their own labels come first.

    Raises:
        DataError: if there is such a file, and the images cannot be read.
    """
    files = list(_files(data))
    if not files:
        return Beside(data, ())
    images = cast(ImagesWithoutLabels, data)
    parts = {split: images.open(split) for split in images.splits()}
    chosen, notes = data, list[str]()
    for file in files:
        if chosen is not data or not isinstance(parts["train"].annotations, Unlabelled):
            first = "the images have other labels" if chosen is data else "another file comes first"
            flag = f"--labels-file {shlex.quote(str(file))}"
            notes.append(f"labels file not used: {file}, because {first}; {flag} uses it")
            continue
        asked = LabelsFile(data=images, labels=str(file))
        try:
            notes.append(_checked(asked, parts))
            chosen = asked
        except DataError as error:
            notes.append(f"labels file not used: {error}")
    return Beside(chosen, tuple(notes))


def _files(data: AnySource) -> Iterator[Path]:
    """The labels files in the folder of the images, then those in the folder of the training split."""
    if not isinstance(data, tuple(kinds(ImagesWithoutLabels).values())):
        return
    images = cast(ImagesWithoutLabels, data)
    root = Path(images.path).expanduser()
    if not root.is_dir():
        return
    within = LabelsFile(data=images, labels="").folder_of("train")
    for folder in (root, root / within) if within else (root,):
        there = {name.lower(): name for name in files_in(folder)}
        for name in (stem + ending for stem in _NAMES for ending in _ENDINGS):
            if name in there:
                yield folder / there[name]


def _checked(data: LabelsFile, parts: dict[str, ImageSource]) -> str:
    """What the labels are read from, and how many images have some.

    Raises:
        DataError: if the file cannot be read, or does not fit the images.
    """
    rows: dict[Path, int] = {}
    used: set[tuple[Path, int]] = set()
    classes: set[str] = set()
    labelled, matched = 0, 0
    for split, source in parts.items():
        file = data.file_of(split)
        names, labels = read_labels(file)
        found = rows_of(source, names, data.folder_of(split))
        found = found[found >= 0]
        if not len(found):
            of_split = f" of the {split} split" if len(parts) > 1 else ""
            raise DataError(
                f"{file} has no row for an image{of_split}; its first is {names[0]}, and the first image is {source.name(0)}"
            )
        rows[file] = len(names)
        used |= {(file, row) for row in found.tolist()}
        classes |= set(labels.kind.names)
        values = labels.values[found].reshape(len(found), -1)
        labelled += int(np.count_nonzero((values > UNKNOWN).all(1)))
        matched += len(found)
    if len(used) < _LEAST_MATCHED * sum(rows.values()):
        raise DataError(
            f"only {len(used):,} of {sum(rows.values()):,} rows of {data.labels} name an image of {data.path}"
        )
    if len(classes) > _MOST_CLASSES * labelled:
        raise DataError(
            f"{data.labels} names {len(classes):,} classes for {labelled:,} images, so they are hardly classes"
        )
    count = sum(map(len, parts.values()))
    return (
        f"labels from {' and '.join(map(str, rows))} ({matched:,} of {count:,} images have a row); "
        f"--labels-file {NO_FILE} ignores it"
    )
