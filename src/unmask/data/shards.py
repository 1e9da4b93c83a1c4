"""WebDataset tar shards, indexed once and then read with random access.

The members of a sample share their path up to the first dot of the file name: `0001.jpg`, `0001.cls`, `0001.json`. The
label is the number or word in `.cls`, or `label` in `.json`; without either, folders in the names are classes, as in a
folder of images. A list as `label` in `.json`, such as {"label": ["cat", "dog"]}, makes the data multi-label; an empty
list means no class. Shards from `unmask pack` include their index and class names.
"""

import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa

from unmask.annotations import UNKNOWN
from unmask.contracts import ImageSource
from unmask.data.cache import size_and_change, size_and_time
from unmask.data.image_files import EncodedImages, Listing
from unmask.data.label_values import NOT_CLASSES, numbered_labels
from unmask.data.labels import Labels, Names, fingerprint, unlabelled, word_labels
from unmask.data.map_layouts import maps_among
from unmask.data.pack_manifest import (
    PackedSplit,
    check_finished,
    check_packed,
    read_pack,
    valid_index,
)
from unmask.data.picture_facts import Facts
from unmask.data.splits import (
    Division,
    divided,
    find_files,
    listed,
    split_of,
    trained_notes,
    undivided,
)
from unmask.data.tar_index import MOST_ODD, Index, index_of
from unmask.data.tiff import BandImages, Tiff
from unmask.errors import DataError, RunError

_ARRAY_HEADER = 4096  # bytes; enough for the header of a .npy, while the array may be large


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Images in tar files."""

    path: str
    """A tar file, a folder of them, or a pattern such as train-{000..010}.tar or train-*.tar."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the names of shards or folders say so, else ("train",)."""
        return tuple(self._division().parts)

    def open(self, split: str = "train") -> ImageSource:
        """Index the shards of a split, or read existing indexes.

        Raises:
            DataError: if a shard is missing, not a tar file or without images, or if packing was interrupted.
        """
        division = self._division()
        shards = division.parts.get(split)
        if shards is None:
            raise DataError(
                f"{self.path} has no shards for {split}; begin the names of its shards with {split}, such as {split}-000.tar"
            )
        listing, places = list_shards(shards, self.path, split)
        if (
            map_ := maps_among(listing.names[row] for row in range(len(listing.names)))
        ) is not None:
            raise DataError(
                f"{self.path} holds class maps beside its pictures, such as {map_}, which shards cannot carry; unpack them and "
                "give the folder"
            )
        listing = listing._replace(notes=(*listing.notes, *_notes(division)))
        if not len(places) or not places.column("array").to_numpy().all():
            listing, places = without_arrays(listing, places)
            return EncodedImages(Members(self.path, shards, places), listing)
        return BandImages(Tiff(path=self.path), Members(self.path, shards, places), listing)

    def _division(self) -> Division[Path]:
        """The shards by split; those of no split are for training, as they are without a test split."""
        root = Path(self.path).expanduser()
        if (pack := read_pack(root)) is not None:
            check_packed(root, pack, sorted(root.glob("*.tar")))
        shards = find_files(self.path, ".tar")
        division = divided(shards, split_of)
        if len(division.parts) < 2:
            return undivided(shards, division)
        test = {*division.parts["test"], *division.val}
        train = [shard for shard in shards if shard not in test]
        return Division({**division.parts, "train": train}, division.val, division.beside)


def _notes(division: Division[Path]) -> tuple[str, ...]:
    """What was made of shards that are neither of train nor of test."""
    notes = list(trained_notes(division))
    if division.val:
        notes.append(f"{listed(division.val)} not used; the test split has its own shards")
    if division.beside:
        notes.append(
            f"{listed(division.beside)} in the train split, because no name says otherwise"
        )
    return tuple(notes)


class Members:
    """The bytes of tar members, read by offset; the tar files must not change."""

    def __init__(self, where: str, shards: list[Path], places: pa.Table) -> None:
        self.where, self._shards = where, shards
        self._states = [size_and_time(shard) for shard in shards]
        self._shard, self._offset, self._size, self._array = (
            places.column(name).to_numpy() for name in ("shard", "offset", "size", "array")
        )
        has_sums = "crc32" in places.column_names and not places.column("crc32").null_count
        self._sums = places.column("crc32").to_numpy() if has_sums else None

    def head(self, row: int) -> io.BytesIO:
        """The whole file of an encoded image, or the beginning of an array."""
        if self._array[row]:
            return io.BytesIO(self._bytes(row, min(int(self._size[row]), _ARRAY_HEADER)))
        return io.BytesIO(self.read(row))

    def whole(self, row: int) -> io.BytesIO:
        """The whole member."""
        return io.BytesIO(self.read(row))

    def read(self, row: int) -> bytes:
        """All bytes of a member.

        Raises:
            DataError: if they cannot be read, or their checksum is wrong.
            RunError: if the shard has changed since it was opened.
        """
        data = self._bytes(row, int(self._size[row]))
        if self._sums is not None and crc32(data) != self._sums[row]:
            shard = self._shards[self._shard[row]].name
            raise DataError(f"damaged: its checksum in {shard} has changed since it was packed")
        return data

    def _bytes(self, row: int, size: int) -> bytes:
        number = int(self._shard[row])
        try:
            with self._shards[number].open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                file.seek(int(self._offset[row]))
                data = file.read(size)
        except FileNotFoundError:
            raise self._changed(number, "was removed") from None
        except OSError as error:
            raise DataError(
                f"cannot be read ({error.strerror}, {self._shards[number].name})"
            ) from None
        if size_and_change(status) != self._states[number]:
            raise self._changed(number, "has changed")
        if len(data) < size:
            raise DataError(f"truncated: it reaches past the end of {self._shards[number].name}")
        return data

    def _changed(self, number: int, how: str) -> RunError:
        return RunError(
            f"{self._shards[number]} {how} since it was opened, so its images cannot be found any more; "
            "restore the shard and continue with --resume, or start again"
        )


def list_shards(shards: list[Path], where: str, split: str) -> tuple[Listing, pa.Table]:
    """The images of all shards in order, and a table of where their bytes are."""
    packed = _packed_split(shards, split)
    indexes = [_index(shard, packed is not None) for shard in shards]
    tables = [
        index.table.append_column("shard", pa.array(np.full(index.table.num_rows, number)))
        for number, index in enumerate(indexes)
    ]
    places = pa.concat_tables(tables, promote_options="default").combine_chunks()
    names = Names.of(places.column("name").combine_chunks())
    sizes = places.column("size").to_numpy()
    facts = [(shard.name, *size_and_time(shard)) for shard in shards]
    labels, notes = _labels(places, indexes, packed, where)
    listing = Listing(
        names=names,
        sizes=sizes,
        labels=labels,
        refused=[row for index in indexes for row in index.refused],
        others=sum((Counter(index.others) for index in indexes), Counter[str]()),
        fingerprint=fingerprint(names, sizes),
        state=fingerprint([f"{Path(where).absolute()}", *(str(fact) for fact in facts)]),
        facts=_facts(places, packed),
        notes=notes,
    )
    return listing, places


def without_arrays(listing: Listing, places: pa.Table) -> tuple[Listing, pa.Table]:
    """Only the encoded images; arrays among them are refused."""
    arrays = places.column("array").to_numpy()
    if not arrays.any():
        return listing, places
    rows, reason = np.flatnonzero(~arrays), "an array among encoded images"
    refused = [(listing.names[row], reason) for row in np.flatnonzero(arrays).tolist()]
    encoded = listing._replace(
        names=listing.names.rows(rows),
        sizes=listing.sizes[rows],
        labels=listing.labels and listing.labels.rows(rows),
        refused=listing.refused + refused,
    )
    return encoded, places.take(rows)


def _index(shard: Path, packed: bool) -> Index:
    """The index that was packed with a shard if it is still valid, else the one in the cache."""
    if packed and (index := valid_index(shard)) is not None:
        return Index(index.table, [], {}, {}, [])
    return index_of(shard)


def _packed_split(shards: list[Path], split: str) -> PackedSplit | None:
    """The split in the manifests of the shards' folders; None if they are not packed folders.

    Raises:
        DataError: if packing was interrupted, or folders have different classes or channels.
    """
    splits: dict[Path, PackedSplit | None] = {}
    for folder in {shard.parent: None for shard in shards}:
        pack = read_pack(folder)
        if pack is not None:
            check_finished(folder, pack)
        splits[folder] = pack and pack.splits.get(split)
    kinds = {packed and (packed.annotations, packed.channels) for packed in splits.values()}
    if len(kinds) > 1:
        raise DataError(
            f"{' and '.join(str(folder) for folder in list(splits)[:2])} were packed with different classes or channels, "
            "so their labels do not match; use one of them, or pack their images together"
        )
    return next(iter(splits.values()))


def _facts(places: pa.Table, packed: PackedSplit | None) -> Facts | None:
    """What the headers say, from the indexes of packed shards; None if they do not have it."""
    if packed is None or not len(places) or "height" not in places.column_names:
        return None
    if packed.channels not in (1, 3):  # of arrays, whose headers are read
        return None
    sides = [places.column(name) for name in ("height", "width")]
    if any(side.null_count for side in sides):
        return None
    sizes = np.stack([side.to_numpy() for side in sides])
    if sizes.min() < 1:
        return None
    height, width = (int(side) for side in np.median(sizes, axis=1))
    return Facts([], packed.channels, (height, width), int(sizes.min()), levels=packed.levels)


def _labels(
    places: pa.Table, indexes: list[Index], packed: PackedSplit | None, where: str
) -> tuple[Labels | None, tuple[str, ...]]:
    """The labels of all samples, None if no sample has one; and notes on labels that are not read.

    Raises:
        DataError: if a packed label is not the number of a class.
    """
    words = places.column("label").to_pylist()
    if packed is not None and not packed.annotations.names:
        return Labels(packed.annotations, np.full(len(words), UNKNOWN)), ()
    if packed is not None:
        return numbered_labels(words, packed.class_names, packed.several_classes, where), ()
    titles = {word: title for index in indexes for word, title in index.titles.items()}
    odd = [line for index in indexes for line in index.odd]
    least = "at least " if any(len(index.odd) >= MOST_ODD for index in indexes) else ""
    notes = (f"{least}{len(odd):,} labels are {NOT_CLASSES}, the first is {odd[0]}",) if odd else ()
    try:
        return word_labels(words, titles), notes
    except DataError as error:
        return unlabelled(len(words)), (*notes, f"labels are {NOT_CLASSES}: {error}")
