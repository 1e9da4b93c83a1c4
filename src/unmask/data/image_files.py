"""Sources of encoded image files, stored in a folder, in tar shards or in Parquet."""

import io
import time
from collections import Counter
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data import cache
from unmask.data.decode import IMAGE_ENDINGS, decode, read_header
from unmask.data.labels import Labels, Names, folder_labels
from unmask.errors import DataError

_HEADERS_READ = 100_000  # sizes and colours are known well enough; more would delay the start
_WORTH_CACHING = 1.0  # seconds of reading headers


class Listing(NamedTuple):
    """Image files of a source, before any of them is opened."""

    names: Names
    sizes: NDArray[np.int64]
    """Size of each file in bytes."""
    labels: Labels | None
    """The classes of the images; None if they come from folder names."""
    refused: list[tuple[str, str]]
    """(name, reason) of files that are already excluded."""
    others: Counter[str]
    fingerprint: str
    state: str
    """A hash that changes with the files, their modification times included."""
    headers: dict[str, Any] | None = None
    """The result of `_read_headers`, if it is known without reading them."""
    notes: tuple[str, ...] = ()
    """What the user should know, a sentence each."""

    def kept(self, rows: NDArray[np.int64]) -> tuple[Names, Labels]:
        """Names and labels of some of the images."""
        names = self.names.rows(rows)
        return names, folder_labels(names) if self.labels is None else self.labels.rows(rows)


@runtime_checkable
class Store(Protocol):
    """Where the bytes of the images are stored."""

    where: str

    def read(self, row: int) -> bytes:
        """All bytes of an image; raises DataError if it cannot be read."""
        ...

    def head(self, row: int) -> Path | io.BytesIO:
        """A path or file from which the header of an image can be read."""
        ...

    def whole(self, row: int) -> Path | io.BytesIO:
        """A path or file with the whole image."""
        ...


class EncodedImages:
    """The images of a listing with valid headers; decoded on access."""

    values: Values = "uint8"  # `decode` converts deeper pixels to uint8
    in_memory = False

    def __init__(self, store: Store, listing: Listing) -> None:
        self._store = store
        self.where, self.others = store.where, listing.others
        self.fingerprint, self.state = listing.fingerprint, listing.state
        headers = listing.headers or _headers(store, listing)
        bad = [row for row, _ in headers["refused"]]
        self.refused = listing.refused + [(listing.names[r], why) for r, why in headers["refused"]]
        self._rows = np.setdiff1d(np.arange(len(listing.names)), bad)
        if not len(self._rows) or headers["channels"] is None:
            raise DataError(_nothing_found(store.where, self.refused, self.others))
        self.channels: int = headers["channels"]
        self.smallest_side: int = headers["smallest_side"]
        self._typical = Size(*headers["typical"])
        self._names, self.image_labels = listing.kept(self._rows)
        self.annotations = self.image_labels.kind
        self.notes: tuple[str, ...] = listing.notes
        self.beside: Counter[str] = Counter()

    def decoded_to(self, channels: int) -> "EncodedImages":
        """The same images decoded to grey (1) or colour (3)."""
        other = copy(self)
        other.channels = channels
        return other

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Sample:
        image = decode(self.encoded(position), self.channels)
        return Sample(image, self.image_labels.annotation(position))

    def encoded(self, position: int) -> bytes:
        """The bytes of the image's file; raises DataError if it cannot be read."""
        return self._store.read(int(self._rows[position]))

    def name(self, position: int) -> str:
        """The image's name in its folder, shard or table."""
        return self._names[position]

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.image_labels.numbers()

    def typical_size(self) -> Size:
        """Median height and width."""
        return self._typical


def _headers(store: Store, listing: Listing) -> dict[str, Any]:
    """The result of `_read_headers`; cached if it took long, until the files change."""
    if (cached := cache.read_json(f"headers-{listing.state}")) is not None:
        return cached
    started = time.perf_counter()
    headers = _read_headers(store, listing)
    if time.perf_counter() - started > _WORTH_CACHING:
        cache.write_json(f"headers-{listing.state}", headers)
    return headers


def _read_headers(store: Store, listing: Listing) -> dict[str, Any]:
    """Channels and sizes from the headers of at most 100,000 evenly spaced images; (row, reason) of invalid files."""
    refused: list[tuple[int, str]] = []
    sizes: list[Size] = []
    grey = True
    every = max(1, -(-len(listing.names) // _HEADERS_READ))
    for row in range(len(listing.names)):
        try:
            if listing.sizes[row] == 0:
                raise DataError("empty (0 bytes)")
            if row % every == 0:
                header = read_header(store.head(row))
                sizes.append(header.size)
                grey = grey and header.grey
        except DataError as error:
            refused.append((row, str(error)))
    return {
        "refused": refused,
        "channels": (1 if grey else 3) if sizes else None,
        "typical": [int(side) for side in np.median(sizes, axis=0)] if sizes else None,
        "smallest_side": min(map(min, sizes)) if sizes else None,
    }


def _nothing_found(where: str, refused: list[tuple[str, str]], others: Counter[str]) -> str:
    if refused:
        name, reason = refused[0]
        return f"none of the {len(refused)} image files in {where} can be read; the first is {name}: {reason}"
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
    return (
        f"no image found in {where} ({f'it contains {kinds}' if kinds else 'it is empty'}); "
        f"images end in {' '.join(sorted(IMAGE_ENDINGS))}"
    )
