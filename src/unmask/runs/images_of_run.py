"""The images of a run that is resumed: where they are now, and whether they are the same.

Names and sizes of the images identify them. Their path is only a hint, because a job may see them at another place each
time. The run's folder keeps the newest place, and the names, so that new and missing images can be named.
"""

import gzip
import json
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from unmask.contracts import ImageSource
from unmask.data import AnySource, Digits, Folder, Held, LabelsFile
from unmask.data.folder import Undivided
from unmask.data.labels_file import ImagesWithoutLabels
from unmask.data.split_folders import train_folder
from unmask.errors import DataError, ResourceError, RunError, SettingsError
from unmask.files import read_json, write_text, write_whole
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images
from unmask.runs.run import Run

_MOST_NAMES = 2**30  # bytes
_SHOWN = 3  # names of new or missing images in a message


def as_begun(run: Run, data: AnySource) -> Images | None:
    """The images of a run at a place; None if others lie there.

    Raises:
        DataError: if there are no images.
    """
    first: DataError | None = None
    for reading in (data, *_older_readings(data)):
        try:
            images = _opened(run, reading)
        except DataError as error:
            first = first or error
            continue
        if _same(run, images):
            return images
    if first is not None:
        raise first
    return None


def _opened(run: Run, data: AnySource) -> Images:
    """The images, read as when the run began: its channels, and its range of 16-bit values."""
    return run.job.open(data, run.seed).read_as(run.statistics, run.channels)


def _same(run: Run, images: Images) -> bool:
    train = images.train
    same = train.fingerprint == run.fingerprint and len(train) == run.images
    return same and run.job.knows(images)


def _older_readings(data: AnySource) -> Iterator[AnySource]:
    """How older versions read a folder: split names only in lower case, and whatever lay beside them."""
    if isinstance(data, LabelsFile):
        for older in _older_readings(data.data):
            yield replace(data, data=cast(ImagesWithoutLabels, older))
    if isinstance(data, Folder):
        yield Undivided(path=data.path, by_content=data.by_content)
        if (folder := train_folder(Path(data.path))) is not None:
            yield Folder(path=str(folder), by_content=data.by_content)


def place_of(run: Run, folder: RunFolder, place: str | None, labels: str | None) -> AnySource:
    """Where the images of a run are: at the given place, else where they were last.

    Raises:
        SettingsError: if the images cannot be elsewhere.
    """
    last_place, last_labels = _last_place(folder)
    place, labels = place or last_place, labels or last_labels
    return run.data if place is None and labels is None else _moved(run.data, place, labels)


def _moved(data: AnySource, place: str | None, labels: str | None) -> AnySource:
    if isinstance(data, Digits):
        if place not in (None, "digits") or labels is not None:
            raise SettingsError("this run learns from digits; leave out DATA and --labels-file")
        return data
    if isinstance(data, Held):
        if place is not None or labels is not None:
            raise SettingsError(
                f"this run learns from images of a Python program ({data.what}), so it can only be resumed from Python, with "
                "the same images: unmask.pretrain(images, resume=RUN), or finetune"
            )
        return data
    if isinstance(data, LabelsFile):
        inner = cast(ImagesWithoutLabels, _moved(data.data, place, None))
        file = _absolute(labels) if labels else _beside(data, inner.path)
        return replace(data, data=inner, labels=file)
    if labels is not None:
        raise SettingsError("this run has no labels file; leave out --labels-file")
    return data if place is None else replace(data, path=_absolute(place))


def _beside(data: LabelsFile, place: str) -> str:
    """The labels file, at the new place if it lay within the images."""
    old = Path(data.labels)
    if old.is_relative_to(data.path):
        return str(place / old.relative_to(data.path))
    return data.labels


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _last_place(folder: RunFolder) -> tuple[str | None, str | None]:
    """The newest place of the images, and of the labels file; None if it does not exist any more."""
    try:
        places = read_json(folder.place)
    except (OSError, DataError):
        return None, None
    known = (
        [place for place in places if isinstance(place, str)] if isinstance(places, list) else []
    )
    existing = [place if Path(place).exists() else None for place in known]
    images, labels, *_ = (*existing, None, None)
    return images, labels


def keep_place(run: Run, folder: RunFolder, data: AnySource) -> None:
    """Keep the place of the images for the next time, if it is not that of the run."""
    if data == run.data and not folder.place.exists():
        return
    assert not isinstance(data, Digits | Held)
    text = json.dumps([data.path, data.labels if isinstance(data, LabelsFile) else None])
    with _told(folder):
        write_text(folder.place, text + "\n")


def keep_names(folder: RunFolder, source: ImageSource) -> None:
    """Keep the names of the training images."""
    names = "\0".join(source.name(position) for position in range(len(source)))
    content = gzip.compress(names.encode(errors="surrogateescape"), 1, mtime=0)  # equal bytes
    with _told(folder):
        write_whole(folder.names, lambda path: path.write_bytes(content))


@contextmanager
def _told(folder: RunFolder) -> Generator[None]:
    """A disk that is full or read-only in a sentence."""
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{folder.root} cannot be written ({error.strerror or error})"
        ) from None


def other_images(run: Run, folder: RunFolder, source: ImageSource, again: str) -> RunError:
    """The error for images that have changed since the run began: names some that are new or missing."""
    names = [source.name(position) for position in range(len(source))]
    what = f"{run.images:,} then, {len(names):,} now{_difference(folder, names)}"
    return RunError(
        f"the images of this run have changed ({what}),\n"
        "so it cannot be resumed exactly; restore them, name the place where they are now as DATA, or start again "
        f"with `{again}`"
    )


def _difference(folder: RunFolder, names: list[str]) -> str:
    try:
        with gzip.open(folder.names) as file:
            content = file.read(_MOST_NAMES)
    except (OSError, EOFError, zlib.error):
        return ", or other names, sizes or classes"
    before, now = set(content.decode(errors="surrogateescape").split("\0")), set(names)
    words = [
        f"; {len(those):,} {what}: {', '.join(sorted(those)[:_SHOWN])}"
        for what, those in (("new", now - before), ("missing", before - now))
        if those
    ]
    return "".join(words) or "; the same names, but other sizes or classes"
