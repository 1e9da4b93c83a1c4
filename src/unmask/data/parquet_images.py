"""The bytes of the images in Parquet files, in memory or in a memory-mapped copy, whatever the files claim.

A small file may stand for much: a dictionary repeats a picture in a million rows, and pages are compressed. So rows are
read a few at a time, bounded by the largest page; a picture that a row group repeats is stored once; and decoded bytes are
counted as they come. Past the limit for memory, everything goes to a copy in the cache folder.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unmask.data import cache
from unmask.data.parquet_rows import BATCH, Group, decoded, groups_of, whole
from unmask.errors import DataError, ResourceError
from unmask.files import write_whole

_IN_MEMORY = 2**31  # bytes of images
_SLACK = 2**30  # bytes that reading may take beyond that for a while
_LARGEST_PAGE = 2**30  # bytes; a dictionary is in memory three times while it is read, a page twice
_WHOLE = 2**28  # bytes of a row group that is read at once
_MOST_REPEATS = 100  # of the bytes of a larger row group
_SPARE = 2**28  # bytes that stay free on the disk
_SCHEMA = pa.schema([("bytes", pa.large_binary()), ("place", pa.int64())])
NOWHERE = -1
"""The place of a row without an image."""


class Images(NamedTuple):
    """The images of all rows of some files."""

    bytes: pa.ChunkedArray
    """The file of each image; null if the row has none, or the same as an earlier row."""
    places: NDArray[np.int64]
    """The position in `bytes` of each row's image; -1 if it has none."""


def read_images(files: list[Path], column: str, state: str) -> Images:
    """The images of a column, from memory or from the copy for this state of the files.

    Raises:
        DataError: if a file is damaged, or has pages too large to read.
        ResourceError: if the images cannot be copied to the cache folder.
    """
    copy = cache.cache_folder() / f"parquet-{state}.arrow"
    groups = [group for file in files for group in groups_of(file, column)]
    rows = sum(group.rows for group in groups)
    if (images := _mapped(copy, rows)) is not None:
        return images
    parts = _joined(_once(groups))
    in_memory: list[pa.RecordBatch] = []
    claimed = sum(group.claimed for group in groups)
    if claimed <= _IN_MEMORY:
        largest = max((group.pages().largest for group in groups), default=0)
        room = min(_IN_MEMORY, _IN_MEMORY + _SLACK - 3 * largest - 2 * BATCH)
        for part in parts:
            in_memory.append(part)
            room -= part.nbytes
            if room < 0:
                break
        else:
            return _images(in_memory)
    _write(_consumed(in_memory, parts), copy, claimed)
    images = _mapped(copy, rows)
    if images is None:
        raise ResourceError(f"{copy} cannot be read back; check the disk of the cache folder")
    return images


def _once(groups: list[Group]) -> Iterator[pa.RecordBatch]:
    """All rows in batches of `_SCHEMA`, each image once in its row group."""
    row = 0
    for group in groups:
        pages = group.pages()
        if pages.largest > _LARGEST_PAGE:
            raise DataError(_too_large(group, pages.largest))
        if pages.dictionary and pages.total <= _WHOLE:
            for part in whole(group).chunks:
                yield _from_dictionary(part, row)
                row += len(part)
            continue
        seen: dict[bytes, int] | None = {} if pages.dictionary else None
        size = 0
        for array in decoded(group, pages):
            size += array.nbytes
            # a column that is stored as a dictionary repeats all of it in every array
            if size > _MOST_REPEATS * pages.total or pa.types.is_dictionary(array.type):
                raise DataError(_too_large(group, size))
            yield _stored_once(array, row, seen)
            row += len(array)


def _too_large(group: Group, size: int) -> str:
    return (
        f"column {group.column} of {group.file} is too large to read: {size / 2**30:.1f} GiB or more in a page, or from "
        "few bytes; write the file again in row groups of 100 rows (row_group_size=100)"
    )


def _from_dictionary(array: pa.DictionaryArray, row: int) -> pa.RecordBatch:
    """A batch of `_SCHEMA` from a dictionary of images, of which the first is in this row."""
    codes = array.indices.fill_null(NOWHERE).to_numpy()
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    places = np.where(codes == NOWHERE, NOWHERE, row + first[which])
    own = np.arange(row, row + len(array))
    images = array.dictionary.take(pa.array(codes, mask=places != own))
    return pa.record_batch([images.cast(pa.large_binary()), pa.array(places)], _SCHEMA)


def _stored_once(array: pa.Array, row: int, seen: dict[bytes, int] | None) -> pa.RecordBatch:
    """A batch of `_SCHEMA` from images, of which the first is in this row; repeats of what was `seen` become null."""
    array = array.cast(pa.large_binary())
    own = np.arange(row, row + len(array))
    places = np.where(array.is_valid().to_numpy(zero_copy_only=False), own, NOWHERE)
    if seen is not None:
        for i in np.flatnonzero(places != NOWHERE).tolist():
            key = blake2b(array[i].as_buffer(), digest_size=16).digest()
            places[i] = seen.setdefault(key, row + i)
        # of what is not taken, no bytes remain
        array = array.take(pa.array(own - row, mask=places != own))
    return pa.record_batch([array, pa.array(places)], _SCHEMA)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Small batches joined to some of about 64 MiB, each in memory of its own."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size >= BATCH:
            yield _one(waiting)
            waiting, size = [], 0
    if waiting:
        yield _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _consumed(
    first: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The batches of a list, each released once it is used, and then the rest."""
    return chain((first.pop(0) for _ in range(len(first))), rest)


def _images(batches: list[pa.RecordBatch]) -> Images:
    table = pa.Table.from_batches(batches, _SCHEMA)
    return Images(table.column("bytes"), table.column("place").to_numpy())


def _mapped(copy: Path, rows: int) -> Images | None:
    """The images of a copy; None if there is none for these rows."""
    try:
        with pa.memory_map(os.fsencode(copy)) as mapped, pa.ipc.open_file(mapped) as table:
            if not table.schema.equals(_SCHEMA):
                return None
            images = _images([table.get_batch(i) for i in range(table.num_record_batches)])
    except (OSError, pa.ArrowException):
        return None
    return images if len(images.places) == rows else None


def _write(parts: Iterator[pa.RecordBatch], copy: Path, claimed: int) -> None:
    """Write the images to a file that can be memory-mapped.

    Raises:
        ResourceError: if the disk is full or the folder cannot be written.
    """

    def write(temporary: Path) -> None:
        _check_free(copy.parent, claimed)
        with (
            pa.OSFile(os.fsencode(temporary), "wb") as file,
            pa.ipc.new_file(file, _SCHEMA) as table,
        ):
            for part in parts:
                _check_free(copy.parent, part.nbytes)
                table.write_batch(part)

    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        cache.clear_leftovers(
            copy.parent
        )  # before free space is counted: a killed copy may fill the disk
        write_whole(copy, write)
    except OSError as error:
        raise ResourceError(
            f"cannot copy the images to {copy.parent} ({error}), and Parquet does not support random access; "
            "free disk space there, or store the images in tar shards or a folder"
        ) from None


def _check_free(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise OSError(f"{needed / 2**30:.1f} GiB are needed, and {free / 2**30:.1f} GiB are free")
