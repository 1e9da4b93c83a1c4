"""Images with any number of channels and any numeric type: TIFF, GeoTIFF (extra `tiff`) and .npy files in a folder.

If a folder has none of these, its other pictures are read with all their bits: 16-bit PNG, or alpha as a channel.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.band_files import (
    BAND_ENDINGS,
    BandReading,
    Shape,
    check_channels,
    read_bands,
    read_shape,
)
from unmask.data.band_stacks import looks_like_stacks, stacks
from unmask.data.cache import size_and_time
from unmask.data.folder import Files, list_files, split_part, splits_of
from unmask.data.image_files import Listing
from unmask.data.labels import Names, fingerprint
from unmask.data.picture_facts import Store
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.data.walk import LARGEST_FILE
from unmask.errors import DataError

_FEW = 0.05  # largest share of images with another number of channels that are skipped


@dataclass(frozen=True, kw_only=True)
class Tiff(BandReading):
    """Multi-band images in a folder and its subfolders, or one file."""

    path: str
    """Path of the folder or file."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the folder has both, else ("train",): all images."""
        return splits_of(Path(self.path).expanduser())

    def open(self, split: str = "train") -> "BandImages":
        """Scan a split: names and headers, no pixels.

        Raises:
            DataError: if there are no images, or they differ in their number of channels.
        """
        path = Path(self.path).expanduser()
        if path.is_file():
            listing = _list_one(path)
            return BandImages(self, Files(path.parent, listing.names), listing)
        part = split_part(self.path, split)
        endings = BAND_ENDINGS | (IMAGE_ENDINGS if self.bands else frozenset())
        listing = list_files(part.root, endings)
        if not len(listing.names):
            listing = list_files(part.root, IMAGE_ENDINGS, largest=LARGEST_FILE)
        source = BandImages(self, Files(part.root, listing.names), listing)
        source.beside, source.more_notes = part.beside, part.notes + source.more_notes
        return source


def _list_one(path: Path) -> Listing:
    """The listing of one file."""
    size, changed = size_and_time(path)
    return Listing(
        names=Names([path.name]),
        sizes=np.array([size]),
        labels=None,
        refused=[],
        others=Counter(),
        fingerprint=fingerprint([path.name], [size]),
        state=fingerprint([str(path.absolute())], [size], [changed]),
    )


class BandImages:
    """See `Tiff`. Images are uint8 if all files are and none has a no-data value, else float32 with NaN."""

    in_memory = False
    more_notes: tuple[str, ...]
    """Notes of the listing and of a labels file."""

    def __init__(self, how: BandReading, store: Store, listing: Listing) -> None:
        self._how, self._store = how, store
        self.where, self.others = store.where, Counter(listing.others)
        self.refused = list(listing.refused)
        self.fingerprint = listing.fingerprint
        self.state = fingerprint([listing.state, repr(how)])
        self._files, self._unused = [(row,) for row in range(len(listing.names))], 0
        if how.bands:
            self._files, refused, self._unused = stacks(listing.names, how.bands)
            self.refused += refused
        self._listed = listing.names
        shapes = self._shapes()
        self.channels = self._agree(shapes)
        if not shapes:
            raise DataError(self._nothing_found())
        self._notes = self._noted(list(shapes.values()))
        self._parts = [
            (number, frame) for number, shape in shapes.items() for frame in range(shape.frames)
        ]
        rows = np.array([self._files[number][0] for number, _ in self._parts])
        self._names, self.image_labels = listing.kept(rows)
        self._several = any(shape.frames > 1 for shape in shapes.values())
        self.annotations = self.image_labels.kind
        self.more_notes = listing.notes
        self.beside: Counter[str] = Counter()
        whole = all(shape.bytes_only for shape in shapes.values())
        self.values: Values = "uint8" if whole else "float32"
        self._sizes = {number: shape.size for number, shape in shapes.items()}
        sizes = list(self._sizes.values())
        self._typical = Size(*(int(side) for side in np.median(sizes, axis=0)))
        self.smallest_side = min(map(min, sizes))

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Noted`."""
        return self.more_notes + self._notes

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, position: int) -> Sample:
        number, frame = self._parts[position]
        image = self._stacked(self._files[number], frame)
        if len(image) != self.channels:
            raise DataError(f"has {len(image)} channels instead of {self.channels}")
        return Sample(image, self.image_labels.annotation(position))

    def name(self, position: int) -> str:
        """The file, relative to the folder, and the number of the frame if files have several."""
        frame = f"[{self._parts[position][1] + 1}]" if self._several else ""
        return self._names[position] + frame

    def file(self, position: int) -> Path | None:
        """See `InFiles`; of an image of several files the first."""
        whole = self._store.whole(self._files[self._parts[position][0]][0])
        return whole if isinstance(whole, Path) else None

    def size(self, position: int) -> Size:
        """The size of an image."""
        return self._sizes[self._parts[position][0]]

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.image_labels.numbers()

    def typical_size(self) -> Size:
        """Median height and width."""
        return self._typical

    def _shapes(self) -> dict[int, Shape]:
        """The header of each image; files that are not images are refused."""
        shapes: dict[int, Shape] = {}
        for number, rows in enumerate(self._files):
            try:
                shapes[number] = self._shape(rows)
            except DataError as error:
                self.refused.append((self._first(number), str(error)))
        return shapes

    def _shape(self, rows: tuple[int, ...]) -> Shape:
        """The header of an image, perhaps of several files; raises DataError if they do not fit."""
        first, *others = (read_shape(self._store.head(row), self._how) for row in rows)
        shape = first
        for row, other in zip(rows[1:], others, strict=True):
            if (other.size, other.frames) != (first.size, first.frames):
                raise DataError(
                    f"has {first.size} pixels, and {self._listed[row]} has {other.size}; bands need the same size"
                )
            both = shape.bytes_only and other.bytes_only
            shape = shape._replace(channels=shape.channels + other.channels, bytes_only=both)
        chosen = self._how.channels
        check_channels(chosen, shape.channels)
        return shape._replace(channels=len(chosen)) if chosen else shape

    def _stacked(self, rows: tuple[int, ...], frame: int) -> Tensor:
        """The pixels of an image, perhaps of several files."""
        bytes_only = self.values == "uint8"
        if len(rows) == 1:
            return read_bands(self._store.whole(rows[0]), self._how, bytes_only, frame)
        how = replace(self._how, channels=())
        image = torch.cat(
            [read_bands(self._store.whole(row), how, bytes_only, frame) for row in rows]
        )
        return (
            image[[channel - 1 for channel in self._how.channels]] if self._how.channels else image
        )

    def _noted(self, shapes: list[Shape]) -> tuple[str, ...]:
        """What was decided about frames and pages, a line each."""
        lines: list[str] = []
        several = [shape for shape in shapes if shape.axes]
        if several:
            shape, count = several[0], len(several)
            what = f"{count:,} files have several pictures (axes {shape.axes})"
            if shape.frames > 1:
                lines.append(
                    f"{what}, {shape.frames} in the first; --frames bands reads them as one"
                )
            else:
                lines.append(f"{what}, read as bands; --frames pictures reads each as an image")
        if self._unused:
            lines.append(f"{self._unused:,} files of other bands are not used")
        if further := sum(shape.further for shape in shapes):
            lines.append(f"{further:,} files have pages of other sizes, which are not read")
        hint = None if self._how.bands else looks_like_stacks(self._listed)
        return (*lines, hint) if hint else tuple(lines)

    def _agree(self, shapes: dict[int, Shape]) -> int:
        """The number of channels of nearly all images; a few with another number are refused.

        Raises:
            DataError: with the counts, if more than a few differ.
        """
        by_count: defaultdict[int, list[int]] = defaultdict(list)
        for row, shape in shapes.items():
            by_count[shape.channels].append(row)
        if not by_count:
            return 0
        usual = max(by_count, key=lambda count: len(by_count[count]))
        odd = {row: count for count, rows in by_count.items() if count != usual for row in rows}
        if len(odd) > _FEW * len(shapes):
            counts = ", ".join(
                f"{len(v)} of {k} (such as {self._first(v[0])})" for k, v in by_count.items()
            )
            raise DataError(
                f"the images in {self.where} differ in their number of channels: {counts}; keep one kind "
                "per folder, or choose channels that all have, such as --channels 1"
            )
        for row, count in odd.items():
            self.refused.append((self._first(row), f"has {count} channels instead of {usual}"))
            del shapes[row]
        return usual

    def _nothing_found(self) -> str:
        if self.refused:
            name, reason = self.refused[0]
            return f"none of the {len(self.refused)} files in {self.where} can be read; the first is {name}: {reason}"
        return f"no image found in {self.where}; multi-band images end in {' '.join(sorted(BAND_ENDINGS))}"

    def _first(self, number: int) -> str:
        """The name of an image's first file."""
        return self._listed[self._files[number][0]]
