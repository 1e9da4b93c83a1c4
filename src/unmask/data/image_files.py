"""Sources of encoded image files, stored in a folder, in tar shards or in Parquet."""

from collections import Counter
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.decode import decode
from unmask.data.labels import Labels, Names, folder_labels
from unmask.data.picture_facts import Facts, Store, facts_of
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.errors import DataError


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
    facts: Facts | None = None
    """What the headers say, if it is known without reading them."""
    notes: tuple[str, ...] = ()
    """What the user should know, a sentence each."""

    def kept(self, rows: NDArray[np.int64]) -> tuple[Names, Labels]:
        """Names and labels of some of the images."""
        names = self.names.rows(rows)
        return names, folder_labels(names) if self.labels is None else self.labels.rows(rows)


class EncodedImages:
    """The images of a listing with valid headers; decoded on access."""

    values: Values = "uint8"  # `decode` converts deeper pixels to uint8
    in_memory = False
    more_notes: tuple[str, ...]
    """Notes of the listing and of a labels file."""

    def __init__(self, store: Store, listing: Listing) -> None:
        self._store = store
        self.where, self.others = store.where, listing.others
        self.fingerprint, self.state = listing.fingerprint, listing.state
        facts = listing.facts or facts_of(store, listing.sizes, listing.state)
        bad = [row for row, _ in facts.refused]
        self.refused = listing.refused + [(listing.names[row], why) for row, why in facts.refused]
        self._rows = np.setdiff1d(np.arange(len(listing.names)), bad)
        if not len(self._rows) or not facts.channels:
            raise DataError(_nothing_found(store.where, self.refused, self.others))
        self.channels, self.smallest_side = facts.channels, facts.smallest_side
        self.levels = facts.levels
        self._facts = facts
        self._names, self.image_labels = listing.kept(self._rows)
        self.annotations = self.image_labels.kind
        self.more_notes = listing.notes
        self.beside: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Noted`."""
        return self.more_notes + self._facts.notes(self.channels, self.levels)

    def decoded_to(self, channels: int) -> "EncodedImages":
        """The same images decoded to grey (1) or colour (3)."""
        other = copy(self)
        other.channels = channels
        return other

    def with_levels(self, levels: tuple[float, float] | None) -> "EncodedImages":
        """The same images with another range of 16-bit values; see `Levelled`."""
        other = copy(self)
        other.levels = levels
        return other

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Sample:
        image = self.decoded(self.encoded(position))
        return Sample(image, self.image_labels.annotation(position))

    def decoded(self, data: bytes) -> UInt8[Tensor, "c h w"]:
        """The pixels of an image's file; raises DataError if it cannot be decoded."""
        return decode(data, self.channels, self.levels)

    def encoded(self, position: int) -> bytes:
        """The bytes of the image's file; raises DataError if it cannot be read."""
        return self._store.read(int(self._rows[position]))

    def head(self, position: int) -> Path | BytesIO:
        """A path or file from which the image's header can be read."""
        return self._store.head(int(self._rows[position]))

    def file(self, position: int) -> Path | None:
        """See `InFiles`."""
        head = self.head(position)
        return head if isinstance(head, Path) else None

    def name(self, position: int) -> str:
        """The image's name in its folder, shard or table."""
        return self._names[position]

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.image_labels.numbers()

    def typical_size(self) -> Size:
        """Median height and width."""
        return Size(*self._facts.typical)


def _nothing_found(where: str, refused: list[tuple[str, str]], others: Counter[str]) -> str:
    if refused:
        name, reason = refused[0]
        return f"none of the {len(refused)} image files in {where} can be read; the first is {name}: {reason}"
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
    return (
        f"no image found in {where} ({f'it contains {kinds}' if kinds else 'it is empty'}); "
        f"images end in {' '.join(sorted(IMAGE_ENDINGS))}"
    )
