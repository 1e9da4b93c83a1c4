"""Parquet files with one image per row, in the layout of Hugging Face's data sets.

The image column is a struct of `bytes` and `path`, or plain bytes. The label column has numbers, whose names are in the
schema's metadata, or words, or lists of either for multi-label images. Parquet can only be read in groups of rows. So
all images are read into memory, or, if they are large, copied once to a memory-mapped file in the cache folder.
"""

import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unmask.data.arrow_files import parquet_metadata
from unmask.data.cache import size_and_time
from unmask.data.image_files import EncodedImages, Listing
from unmask.data.labels import Names, fingerprint
from unmask.data.parquet_columns import layout_of
from unmask.data.parquet_images import NOWHERE, read_images
from unmask.data.parquet_labels import read_labels
from unmask.data.splits import (
    Division,
    divided,
    find_files,
    listed,
    split_of,
    trained_notes,
    undivided,
)
from unmask.errors import DataError

_SPLIT_FILE = re.compile(r"(.+?)-\d+-of-\d+\.parquet")


@dataclass(frozen=True, kw_only=True)
class Parquet:
    """Images in the rows of Parquet files."""

    path: str
    """A Parquet file, a folder of them, or a pattern such as train-*.parquet."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the names of files or folders say so, else ("train",)."""
        return tuple(self._division().parts)

    def open(self, split: str = "train") -> EncodedImages:
        """Read the labels of a split, and the images if they fit in memory.

        Raises:
            DataError: if a file is not Parquet or damaged, or has no column of images.
            ResourceError: if the images cannot be copied to the cache folder.
        """
        division = self._division()
        if split not in division.parts:
            raise DataError(
                f"{self.path} has no Parquet files for {split}; begin the names of its files with {split}, such as "
                f"{split}-00000-of-00001.parquet"
            )
        try:
            source = _open(division.parts[split], self.path)
        except UnicodeDecodeError:
            raise DataError(
                f"{self.path} is damaged: a name in its Parquet files is not text"
            ) from None
        unused = {file: _rows_in(file) for file in (*division.beside, *division.val)}
        source.beside = Counter({self._within(file): unused[file] or 0 for file in division.beside})
        source.more_notes += (*trained_notes(division), *_notes(division, unused))
        return source

    def _within(self, file: Path) -> str:
        """A file's path in DATA."""
        root = Path(self.path).expanduser()
        return str(file.relative_to(root) if root.is_dir() else file)

    def _division(self) -> Division[Path]:
        """The files by split; those of no split are not used if some are called train."""
        files = find_files(self.path, ".parquet")
        division = divided(files, split_of)
        if "train" in division.parts:
            return division
        named = sorted({match[1] for file in files if (match := _SPLIT_FILE.fullmatch(file.name))})
        if len(named) > 1:
            raise DataError(
                f"{self.path} has the splits {', '.join(named)}, but none is called train; give the training files "
                f"as DATA, such as '{files[0].parent}/{named[0]}-*.parquet'"
            )
        return undivided(files, division)


def _notes(division: Division[Path], unused: dict[Path, int | None]) -> tuple[str, ...]:
    """What is not used of the files of no split and of val, whose numbers of rows are given."""
    notes: list[str] = []
    if division.val:
        rows = sum(unused[file] or 0 for file in division.val)
        notes.append(
            f"{rows:,} images in {division.val[0].name} and the like are not used; the test split has its own files"
        )
    if damaged := [file for file, rows in unused.items() if rows is None]:
        notes.append(
            f"{listed(damaged)} not Parquet, or truncated; no split needs {'them' if len(damaged) > 1 else 'it'}"
        )
    return tuple(notes)


def _rows_in(file: Path) -> int | None:
    """The number of rows; None if it is not a Parquet file."""
    if not file.is_file():
        return None
    try:
        return parquet_metadata(file).num_rows
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return None


def _open(files: list[Path], where: str) -> EncodedImages:
    columns, notes = layout_of(files[0])
    for file in files[1:]:
        if (other := layout_of(file).columns) != columns:
            raise DataError(
                f"{files[0].name} and {file.name} differ: {columns.in_words()} and {other.in_words()}; "
                "keep files with the same columns in one folder"
            )
    state = fingerprint([f"{file.absolute()} {size_and_time(file)}" for file in files])
    images = read_images(files, columns.image_path, state)
    counts = [parquet_metadata(file).num_rows for file in files]
    names = [
        f"{f.name}:{row}" for f, rows in zip(files, counts, strict=True) for row in range(rows)
    ]
    if not names:
        raise DataError(f"{where} has no rows, so it has no images")
    missing = np.flatnonzero(images.places == NOWHERE).tolist()
    rows = np.flatnonzero(images.places != NOWHERE)
    labels, label_notes = read_labels(files, columns, len(names))
    valid_names, places = Names(names).rows(rows), images.places[rows]
    import pyarrow.compute as pc

    lengths = pc.call_function("binary_length", [images.bytes]).fill_null(0)
    sizes = lengths.to_numpy().astype(np.int64)[places]
    listing = Listing(
        names=valid_names,
        sizes=sizes,
        labels=labels.rows(rows),
        refused=[(names[row], "has no bytes (null)") for row in missing],
        others=Counter(),
        fingerprint=fingerprint(valid_names, sizes),
        state=state,
        notes=(*notes, *label_notes),
    )
    return EncodedImages(Rows(where, images.bytes, places), listing)


class Rows:
    """The bytes in the rows of a table."""

    def __init__(self, where: str, images: pa.ChunkedArray, places: NDArray[np.int64]) -> None:
        self.where, self._images, self._places = where, images, places

    def head(self, row: int) -> io.BytesIO:
        """The whole file: it is in memory already."""
        return io.BytesIO(self.read(row))

    whole = head

    def read(self, row: int) -> bytes:
        """The bytes of an image."""
        return self._images[int(self._places[row])].as_py()
