"""Images with any number of channels and any numeric type: TIFF, GeoTIFF and .npy files in a folder."""

import io
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.bands import BAND_ENDINGS, Shape, read_bands, read_shape
from unmask.data.cache import size_and_time
from unmask.data.folder import Files, list_files, split_folder, splits_of
from unmask.data.image_files import Listing
from unmask.data.labels import Names, fingerprint, folder_labels
from unmask.errors import DataError, SettingsError

_FEW = 0.05  # largest share of images with another number of channels that are skipped


@dataclass(frozen=True, kw_only=True)
class Tiff:
    """Multi-band images in a folder and its subfolders, or one file."""

    path: str
    """Path of the folder or file."""

    channels: tuple[int, ...] = ()
    """Channels to use, counted from 1, in this order; all if empty."""

    no_data: float | None = None
    """The value that means missing; by default, the no-data value of a GeoTIFF. NaN always means missing."""

    def __post_init__(self) -> None:
        if any(band < 1 for band in self.channels):
            raise SettingsError(f"channels are counted from 1, got {list(self.channels)}")

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
        root = split_folder(self.path, split)
        listing = list_files(root, BAND_ENDINGS)
        return BandImages(self, Files(root, listing.names), listing)


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


@runtime_checkable
class BandStore(Protocol):
    """Where the arrays are stored."""

    def head(self, row: int) -> Path | io.BytesIO:
        """A path or file from which the header of an array can be read."""
        ...

    def whole(self, row: int) -> Path | io.BytesIO:
        """A path or file with the whole array."""
        ...


class BandImages:
    """See `Tiff`. Images are uint8 if all files are and none has a no-data value, else float32 with NaN."""

    in_memory = False

    def __init__(self, spec: Tiff, store: BandStore, listing: Listing) -> None:
        self._spec, self._store = spec, store
        self.where, self.others = spec.path, listing.others
        self.refused = list(listing.refused)
        self.fingerprint = listing.fingerprint
        self.state = fingerprint([listing.state, f"{spec.channels} {spec.no_data}"])
        shapes = self._shapes(listing.names)
        self.channels = self._agree(shapes, listing.names)
        if not shapes:
            raise DataError(self._nothing_found())
        self._rows = np.array(list(shapes))
        self._names = listing.names.rows(self._rows)
        self.image_labels = (
            folder_labels(self._names)
            if listing.labels is None
            else listing.labels.rows(self._rows)
        )
        self.annotations = self.image_labels.kind
        self.notes: tuple[str, ...] = ()
        whole = all(shape.bytes_only for shape in shapes.values())
        self.values: Values = "uint8" if whole else "float32"
        sizes = [shape.size for shape in shapes.values()]
        self._typical = Size(*(int(side) for side in np.median(sizes, axis=0)))
        self.smallest_side = min(map(min, sizes))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, position: int) -> Sample:
        file = self._store.whole(int(self._rows[position]))
        image = read_bands(file, self._spec.channels, self._spec.no_data, self.values == "uint8")
        if len(image) != self.channels:
            raise DataError(f"has {len(image)} channels instead of {self.channels}")
        return Sample(image, self.image_labels.annotation(position))

    def name(self, position: int) -> str:
        """The file, relative to the folder."""
        return self._names[position]

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.image_labels.numbers()

    def typical_size(self) -> Size:
        """Median height and width."""
        return self._typical

    def _shapes(self, names: Names) -> dict[int, Shape]:
        """The header of each row; files that are not images are refused."""
        shapes: dict[int, Shape] = {}
        for row in range(len(names)):
            try:
                shapes[row] = self._shape(row)
            except DataError as error:
                self.refused.append((names[row], str(error)))
        return shapes

    def _shape(self, row: int) -> Shape:
        shape = read_shape(self._store.head(row), self._spec.no_data)
        bands = self._spec.channels
        if not bands:
            return shape
        if max(bands) > shape.channels:
            raise DataError(f"has {shape.channels} channels; channel {max(bands)} does not exist")
        return shape._replace(channels=len(bands))

    def _agree(self, shapes: dict[int, Shape], names: Names) -> int:
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
                f"{len(v)} of {k} (such as {names[v[0]]})" for k, v in by_count.items()
            )
            raise DataError(
                f"the images in {self.where} differ in their number of channels: {counts}; keep one kind "
                "per folder, or choose channels that all have, such as --channels 1"
            )
        for row, count in odd.items():
            self.refused.append((names[row], f"has {count} channels instead of {usual}"))
            del shapes[row]
        return usual

    def _nothing_found(self) -> str:
        if self.refused:
            name, reason = self.refused[0]
            return f"none of the {len(self.refused)} files in {self.where} can be read; the first is {name}: {reason}"
        return f"no image found in {self.where}; multi-band images end in {' '.join(sorted(BAND_ENDINGS))}"
