"""Pictures with class maps or objects: any pictures that a folder may hold, with annotations that are read with them."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from unmask.annotations import UNKNOWN, Annotation, AnyAnnotations, ClassMaps, ObjectLabels
from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.band_files import BAND_ENDINGS, BandReading, has_bands
from unmask.data.decode import stored_as
from unmask.data.folder import Files, list_named
from unmask.data.found import Found
from unmask.data.frames import UPRIGHT, displayed, turn_of
from unmask.data.image_files import EncodedImages
from unmask.data.labels import unlabelled
from unmask.data.object_table import OUTSIDE, ObjectTable
from unmask.data.picture_facts import evenly
from unmask.data.tiff import BandImages
from unmask.errors import DataError
from unmask.progress import counted

Pictures = EncodedImages | BandImages

T = TypeVar("T", bound="Known")

_LOOKED_AT = 2000  # pictures whose header is compared with their annotations before anything runs
_OPENED = 4


@runtime_checkable
class Known(Protocol):
    """The annotations of pictures, by the row of a picture."""

    @property
    def kind(self) -> ClassMaps | ObjectLabels:
        """What they are."""
        ...

    @property
    def mark(self) -> str:
        """A hash of the annotations."""
        ...

    @property
    def what(self) -> str:
        """Where they come from, to follow "the picture has 2 x 3 pixels, and"."""
        ...

    def of(self, row: int, shown: Size, orientation: Callable[[], int]) -> Annotation:
        """The annotation of a picture that is displayed in size `shown`; `orientation` looks up EXIF's.

        Raises:
            DataError: if it cannot be read, or does not fit the picture.
        """
        ...

    def frame(self, row: int) -> Size | None:
        """The size of the picture that the annotation was drawn in; None for the picture as displayed."""
        ...

    def found(self, rows: NDArray[np.int64]) -> Found:
        """What these pictures have."""
        ...

    def present(self, rows: NDArray[np.int64]) -> Bool[NDArray[np.bool_], "n classes"]:
        """Which classes each of these pictures shows."""
        ...

    def with_kind(self: T, kind: Any) -> T:
        """The same with the classes of another kind, which has all of them, by name."""
        ...


class DenseImages:
    """Pictures, and what is known of places in them."""

    def __init__(
        self, pictures: Pictures, known: Known, names: Sequence[str], notes: tuple[str, ...] = ()
    ) -> None:
        """`names` are those of the annotated pictures, by row.

        Raises:
            DataError: if no annotation fits its picture.
        """
        row_of = {name: row for row, name in enumerate(names)}
        self.rows = np.array([row_of[pictures.name(i)] for i in range(len(pictures))], np.int64)
        self._own_notes: tuple[str, ...] = ()
        self._hold(pictures, known)
        self._own_notes = notes + _frame_notes(self)

    def _hold(self, pictures: Pictures, known: Known) -> None:
        """Take what is said of pictures and annotations from both."""
        self.pictures, self.known = pictures, known
        self.annotations: AnyAnnotations = known.kind
        self.where, self.channels = pictures.where, pictures.channels
        self.values: Values = pictures.values
        self.refused, self.others = pictures.refused, pictures.others
        self.beside: Counter[str] = pictures.beside
        self.smallest_side, self.in_memory = pictures.smallest_side, pictures.in_memory
        self.fingerprint = f"{pictures.fingerprint}-{known.mark}"
        self.state = f"{pictures.state}-{known.mark}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Noted`."""
        return self.pictures.notes + self._own_notes

    @property
    def levels(self) -> tuple[float, float] | None:
        """See `Levelled`."""
        return self.pictures.levels if isinstance(self.pictures, EncodedImages) else None

    def with_levels(self, levels: tuple[float, float] | None) -> "DenseImages":
        """See `Levelled`."""
        if not isinstance(self.pictures, EncodedImages):
            return self
        return self.with_pictures(self.pictures.with_levels(levels))

    def with_pictures(self, pictures: Pictures) -> "DenseImages":
        """The same annotations of the same pictures, read in another way."""
        other = copy(self)
        other._hold(pictures, self.known)
        return other

    def with_kind(self, kind: ClassMaps | ObjectLabels) -> "DenseImages":
        """The same images with the classes of another kind, which has all of them, by name."""
        other = copy(self)
        other._hold(self.pictures, self.known.with_kind(kind))
        return other

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, position: int) -> Sample:
        image = self.pictures[position].image
        shown = Size(*image.shape[-2:])
        known = self.known.of(int(self.rows[position]), shown, lambda: self.stored(position)[1])
        return Sample(image, known)

    def file(self, position: int) -> Path | None:
        """See `InFiles`."""
        return self.pictures.file(position)

    def name(self, position: int) -> str:
        """The image's name in its folder."""
        return self.pictures.name(position)

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`: -1, because annotations say more than classes."""
        return np.full(len(self), UNKNOWN)

    def typical_size(self) -> Size:
        """Median height and width."""
        return self.pictures.typical_size()

    def found(self) -> Found:
        """What the annotations hold."""
        return self.known.found(self.rows)

    def present(self) -> Bool[NDArray[np.bool_], "n classes"]:
        """Which classes each image shows; class maps are read for it."""
        return self.known.present(self.rows)

    def stored(self, position: int) -> tuple[Size, int]:
        """The size of an image as stored, and EXIF's orientation; raises DataError if it cannot be read."""
        if isinstance(self.pictures, EncodedImages):
            return stored_as(self.pictures.head(position))
        return self.pictures.size(position), UPRIGHT


@runtime_checkable
class WithPictures(Protocol):
    """The spec of a source of dense annotations, whose pictures can be read alone."""

    def pictures(self, split: str = "train") -> Pictures:
        """All pictures of a split, without annotations and also those that have none.

        Raises:
            DataError: if there are none.
        """
        ...


def open_pictures(root: Path, names: Sequence[str]) -> Pictures:
    """Some pictures of a folder, without labels: as a folder of images is read, or with all their channels.

    Raises:
        DataError: if none of them can be read.
    """
    listing = list_named(root, names)
    listing = listing._replace(labels=unlabelled(len(listing.names)))
    files = Files(root, listing.names)
    first = [root / listing.names[row] for row in range(min(_OPENED, len(listing.names)))]
    if any(has_bands(file) for file in first if file.suffix.lower() in BAND_ENDINGS):
        return BandImages(BandReading(frames="bands"), files, listing)
    return EncodedImages(files, listing)


def _frame_notes(source: DenseImages) -> tuple[str, ...]:
    """What was decided about pictures whose orientation or size differs from that of their annotations, a line each."""
    chosen = evenly(len(source), _LOOKED_AT)
    turned = shown = 0
    outside: list[tuple[str, int]] = []
    wrong: list[tuple[str, str]] = []
    for position in counted(chosen, len(chosen), "comparing pictures with annotations"):
        try:
            stored, orientation = source.stored(position)
            frame = source.known.frame(int(source.rows[position]))
        except DataError:  # training sets it aside
            continue
        whole = displayed(stored, orientation)
        try:
            turn = turn_of(frame or whole, whole, orientation, source.known.what)
        except DataError as error:
            wrong.append((source.name(position), str(error)))
            continue
        if isinstance(source.known, ObjectTable):
            count = source.known.outside(int(source.rows[position]), whole)
            outside += [(source.name(position), count)] if count else []
        is_turned = turn.orientation != UPRIGHT
        turned += is_turned
        shown += orientation != UPRIGHT and not is_turned
    of_these = f" (of {len(chosen):,} looked at)" if len(chosen) < len(source) else ""
    if wrong and len(wrong) == len(chosen):
        raise DataError(f"no annotation in {source.where} fits its picture: {': '.join(wrong[0])}")
    lines: list[str] = []
    if turned:
        lines.append(
            f"{turned:,} pictures{of_these} are rotated by EXIF and annotated as stored: annotations are rotated with them"
        )
    if shown:
        lines.append(f"{shown:,} pictures{of_these} are rotated by EXIF and annotated as displayed")
    if outside:
        number = sum(count for _, count in outside)
        lines.append(f"{number:,} {OUTSIDE}{of_these}, the first in {outside[0][0]}")
    if wrong:
        lines.append(
            f"{len(wrong):,} pictures{of_these} cannot be used, the first is {wrong[0][0]}: {wrong[0][1]}"
        )
    return tuple(lines)
