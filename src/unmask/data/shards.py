"""WebDataset tar shards: indexed once, then read at random.

A sample is the members that share a path up to the first dot of their name: `0001.jpg`, `0001.cls`, `0001.json`.
The label is the number or word in `.cls`, or `label` in `.json`; without either, folders in the names
are classes, as in a folder of images.
"""

import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unmask.data.changes import size_and_time
from unmask.data.encoded import EncodedImages, Listing
from unmask.data.names import Names, classes_of_labels, fingerprint
from unmask.data.splits import find_files, split_of
from unmask.data.tar_index import Index, index_of
from unmask.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Images in tar files."""

    path: str
    """A tar file, a folder of them, or a pattern such as train-{000..010}.tar or train-*.tar."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") where names of shards, or folders in them, say so; else ("train",)."""
        return tuple(self._by_split())

    def open(self, split: str = "train") -> EncodedImages:
        """Index the shards of a split, or take up the index made before.

        Raises:
            DataError: if a shard is missing, is no tar file, or holds no image.
        """
        shards = self._by_split()
        if split not in shards:
            raise DataError(f"{self.path} has no shards for {split}")
        listing, places = list_shards(shards[split], self.path)
        return EncodedImages(Members(self.path, shards[split], places), listing)

    def _by_split(self) -> dict[str, list[Path]]:
        shards = find_files(self.path, ".tar")
        found: dict[str, list[Path]] = {"train": [], "test": []}
        for shard in shards:
            found[split_of(shard) or "train"].append(shard)
        if not found["test"] or not any(split_of(shard) for shard in found["train"]):
            return {"train": shards}
        return found


class Members:
    """The bytes of members of tar files, by their place."""

    in_memory = False

    def __init__(self, where: str, shards: list[Path], places: pa.Table) -> None:
        self.where, self._shards = where, shards
        self._shard, self._offset, self._size = (
            places.column(name).to_numpy() for name in ("shard", "offset", "size")
        )

    def head(self, row: int) -> io.BytesIO:
        """The whole member: it is read in one go."""
        return io.BytesIO(self.read(row))

    def read(self, row: int) -> bytes:
        """All bytes of a member."""
        size = int(self._size[row])
        try:
            handle = os.open(self._shards[self._shard[row]], os.O_RDONLY)
            try:
                data = os.pread(handle, size, int(self._offset[row]))
            finally:
                os.close(handle)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from None
        if len(data) < size:
            raise DataError("cut off: its shard has become shorter")
        return data


def list_shards(shards: list[Path], where: str) -> tuple[Listing, pa.Table]:
    """The images of all shards, in their order, and where their bytes lie."""
    indexes = [index_of(shard) for shard in shards]
    tables = [
        index.table.append_column("shard", pa.array(np.full(index.table.num_rows, number)))
        for number, index in enumerate(indexes)
    ]
    places = pa.concat_tables(tables).combine_chunks()
    names = Names.of(_one_chunk(places.column("name")))
    sizes = places.column("size").to_numpy()
    facts = [(shard.name, *size_and_time(shard)) for shard in shards]
    listing = Listing(
        names=names,
        sizes=sizes,
        classes=_classes(places, indexes),
        refused=[row for index in indexes for row in index.refused],
        others=sum((Counter(index.others) for index in indexes), Counter[str]()),
        fingerprint=fingerprint(names, sizes),
        state=fingerprint([f"{Path(where).absolute()}", *(str(fact) for fact in facts)]),
    )
    return listing, places


def _one_chunk(column: pa.ChunkedArray) -> pa.LargeBinaryArray:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.large_binary())


def _classes(
    places: pa.Table, indexes: list[Index]
) -> tuple[tuple[str, ...], NDArray[np.int64]] | None:
    """Class names and numbers from the labels; None where no sample has one."""
    titles: dict[str, str] = {}
    for index in indexes:
        titles |= index.titles
    return classes_of_labels(places.column("label").to_pylist(), titles)
