"""Parquet files with an image in each row, in the layout of Hugging Face's data sets.

The image column is a struct of `bytes` and `path`, or plain bytes; the label column holds numbers, whose names are in
the schema's metadata, or words; or lists of them, where images may belong to several classes or to none. Rows are read at random from memory; what is large is copied once
into a memory-mapped file in the cache folder, since Parquet itself can only be read in groups of rows.
"""

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unmask.annotations import UNKNOWN, ClassLabels, MultiLabels
from unmask.data import cache
from unmask.data.changes import size_and_time
from unmask.data.image_files import EncodedImages, Listing
from unmask.data.labels import Labels, as_word, several_labels, unlabelled, word_labels
from unmask.data.names import Names, fingerprint
from unmask.data.splits import find_files, split_of
from unmask.errors import DataError, ResourceError
from unmask.files import write_whole

_IN_MEMORY = 2**31
_IMAGE_NAMES = ("image", "img", "jpg", "png", "bytes")
_LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "category")
_SPLIT_FILE = re.compile(r"(.+?)-\d+-of-\d+\.parquet")


@dataclass(frozen=True, kw_only=True)
class Parquet:
    """Images in rows of Parquet files."""

    path: str
    """A Parquet file, a folder of them, or a pattern such as train-*.parquet."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") where the files' names or folders say so, else ("train",)."""
        return tuple(self._by_split())

    def open(self, split: str = "train") -> EncodedImages:
        """Read the labels of a split, and the images if they are not many.

        Raises:
            DataError: if a file is no Parquet, or its columns are not those of images.
            ResourceError: if large images cannot be copied to the cache folder.
        """
        files = self._by_split()
        if split not in files:
            raise DataError(f"{self.path} has no Parquet files for {split}")
        return _open(files[split], self.path)

    def _by_split(self) -> dict[str, list[Path]]:
        files = find_files(self.path, ".parquet")
        found: dict[str, list[Path]] = {"train": [], "test": []}
        for file in files:
            if split := split_of(file):
                found[split].append(file)
        if found["train"]:
            return found if found["test"] else {"train": found["train"]}
        named = sorted({match[1] for file in files if (match := _SPLIT_FILE.fullmatch(file.name))})
        if len(named) > 1:
            raise DataError(
                f"{self.path} holds the splits {', '.join(named)}, and none of them is called train; "
                f"name the files to learn from, such as '{files[0].parent}/{named[0]}-*.parquet'"
            )
        return {"train": files}


class _Layout(NamedTuple):
    """The columns that matter."""

    image: str
    nested: bool
    """Whether the image is a struct that holds bytes."""
    label: str | None
    several: bool
    """Whether each label is a list of classes."""
    class_names: tuple[str, ...]


def _open(files: list[Path], where: str) -> EncodedImages:
    layout = _layout(files[0])
    for file in files[1:]:
        if (other := _layout(file)) != layout:
            raise DataError(
                f"{files[0].name} and {file.name} differ: {_in_words(layout)} and {_in_words(other)}; "
                "keep files of one kind in a folder"
            )
    state = fingerprint([f"{file.absolute()} {size_and_time(file)}" for file in files])
    chunks = _chunks(files, layout, state)
    sizes = pa.chunked_array([pc.call_function("binary_length", [chunk]) for chunk in chunks])
    names = _row_names(files)
    there = sizes.is_valid().to_numpy()
    missing = [(name, "holds no bytes (null)") for name in np.array(names)[~there].tolist()]
    rows = np.flatnonzero(there)
    kept, bytes_of = Names(names).rows(rows), sizes.fill_null(0).to_numpy()[rows].astype(np.int64)
    listing = Listing(
        names=kept,
        sizes=bytes_of,
        labels=_labels(files, layout).rows(rows),
        refused=missing,
        others=Counter(),
        fingerprint=fingerprint(kept, bytes_of),
        state=state,
    )
    return EncodedImages(Rows(where, chunks, rows), listing)


class Rows:
    """The bytes in rows of a table."""

    in_memory = False  # the bytes are, but decoding them takes its time

    def __init__(self, where: str, chunks: list[Any], rows: NDArray[np.int64]) -> None:
        self.where, self._chunks, self._rows = where, chunks, rows
        self._ends = np.cumsum([len(chunk) for chunk in chunks])

    def head(self, row: int) -> io.BytesIO:
        """The whole image: it is in memory."""
        return io.BytesIO(self.read(row))

    def read(self, row: int) -> bytes:
        """The bytes of an image."""
        place = int(self._rows[row])
        number = int(np.searchsorted(self._ends, place, side="right"))
        chunk = self._chunks[number]
        return chunk[place - int(self._ends[number]) + len(chunk)].as_py()


def _layout(file: Path) -> _Layout:
    """Find the columns of a file.

    Raises:
        DataError: listing the columns, if none holds images.
    """
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{file} is no Parquet file, or not whole ({first})") from None
    features = _features(schema)
    images = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    marked = [name for name in images if _type_of(features, name) == "Image"]
    named = [name for name in _IMAGE_NAMES if name in images]
    chosen = [*marked, *named, *(images if len(images) == 1 else [])]
    if not chosen:
        columns = ", ".join(f"{name} ({schema.field(name).type})" for name in schema.names)
        raise DataError(
            f"{file} has no column of images; it has {columns}. An image column holds encoded bytes, "
            "or a struct of bytes and path, and is called image"
        )
    image = chosen[0]
    label = _label_column(schema, features)
    several = label is not None and _is_list(schema.field(label).type)
    names = _class_names(features, label or "")
    return _Layout(image, pa.types.is_struct(schema.field(image).type), label, several, names)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of the columns; empty without one."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(about.get("info", {}).get("features", {}))
    except (ValueError, AttributeError):
        return {}


def _type_of(features: dict[str, Any], column: str) -> str | None:
    about = features.get(column)
    return about.get("_type") if isinstance(about, dict) else None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _label_column(schema: pa.Schema, features: dict[str, Any]) -> str | None:
    def usable(name: str) -> bool:
        kind = schema.field(name).type
        kind = kind.value_type if _is_list(kind) else kind
        return pa.types.is_integer(kind) or pa.types.is_string(kind)

    marked = [n for n in schema.names if _type_of(features, n) == "ClassLabel"]
    candidates = [n for n in (*_LABEL_NAMES, *marked) if n in schema.names and usable(n)]
    return next((name for name in candidates if name in marked), next(iter(candidates), None))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _class_names(features: dict[str, Any], label: str) -> tuple[str, ...]:
    """The names of classes that the description gives a column, or the elements of its lists."""
    about = features.get(label, {})
    if isinstance(about, list):  # as older versions of `datasets` write a list
        about = about[0] if about else {}
    about = about.get("feature", about)
    return tuple(about.get("names") or ())


def _in_words(layout: _Layout) -> str:
    label = f"labels {layout.label}" if layout.label else "no labels"
    label += " (lists)" if layout.several else ""
    classes = f" of {len(layout.class_names)} classes" if layout.class_names else ""
    return f"images {layout.image}{' (a struct)' if layout.nested else ''}, {label}{classes}"


def _row_names(files: list[Path]) -> list[str]:
    return [f"{f.name}:{row}" for f in files for row in range(pq.read_metadata(f).num_rows)]


def _labels(files: list[Path], layout: _Layout) -> Labels:
    """The classes of each row, unknown where its label is null.

    Raises:
        DataError: for a label that has no name.
    """
    if layout.label is None:
        return unlabelled(sum(pq.read_metadata(file).num_rows for file in files))
    columns = [pq.read_table(file, columns=[layout.label]).column(0) for file in files]
    labels = [label for column in columns for label in column.to_pylist()]
    if not layout.class_names:
        return word_labels([_word(label) for label in labels], {}) or unlabelled(len(labels))
    _check_named(labels, layout)
    if layout.several:
        names = [str(number) for number in range(len(layout.class_names))]
        lists = [None if label is None else [str(one) for one in label] for label in labels]
        return several_labels(lists, names)._replace(kind=MultiLabels(names=layout.class_names))
    numbers = np.array([UNKNOWN if label is None else label for label in labels])
    return Labels(ClassLabels(names=layout.class_names), np.maximum(numbers, UNKNOWN))


def _word(label: Any) -> str:
    if label is None:
        return ""
    return as_word(label) if isinstance(label, list) else str(label)


def _check_named(labels: list[Any], layout: _Layout) -> None:
    """Refuse numbers of classes beyond the names in the schema."""
    count = len(layout.class_names)
    lists = [label if isinstance(label, list) else [label] for label in labels]
    highest = max((one for several in lists for one in several if one is not None), default=0)
    if highest >= count:
        raise DataError(
            f"label {highest} of column {layout.label} has no name: the schema names {count} "
            "classes, counted from 0"
        )


def _chunks(files: list[Path], layout: _Layout, state: str) -> list[Any]:
    """The images' bytes as arrays: in memory, or memory-mapped from a copy in the cache folder."""
    size = sum(_bytes_of(file, layout.image) for file in files)
    if size <= _IN_MEMORY:
        return [chunk for file in files for chunk in _read(file, layout)]
    path = cache.cache_folder() / f"parquet-{state}.arrow"
    if not path.exists():
        _copy(files, layout, path, size)
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as table:
        return [table.get_batch(i).column(0) for i in range(table.num_record_batches)]


def _bytes_of(file: Path, column: str) -> int:
    """Bytes of a column's values, before compression."""
    metadata = pq.read_metadata(file)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(
        c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == column
    )


def _read(file: Path, layout: _Layout) -> Iterator[Any]:
    """The bytes of a file's images, an array at a time."""
    column = f"{layout.image}.bytes" if layout.nested else layout.image
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(1000, columns=[column]):
            array = batch.column(0)
            yield array.flatten()[0] if layout.nested else array  # a null row has null bytes


def _copy(files: list[Path], layout: _Layout, path: Path, size: int) -> None:
    """Write the images into one file that can be memory-mapped.

    Raises:
        ResourceError: if the disk is too small, or the folder cannot be written.
    """

    def write(temporary: Path) -> None:
        free = shutil.disk_usage(path.parent).free
        if free < 1.05 * size:
            raise OSError(f"{size / 2**30:.1f} GiB are needed, and {free / 2**30:.1f} GiB are free")
        schema = pa.schema([("bytes", pa.binary())])
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as table:
            for part in (part for file in files for part in _read(file, layout)):
                table.write_batch(pa.record_batch([part.cast(pa.binary())], schema))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except OSError as error:
        raise ResourceError(
            f"Parquet cannot be read at random, and a copy that can does not fit in {path.parent} ({error}); "
            "make room there, or write the images to tar shards or a folder"
        ) from None
