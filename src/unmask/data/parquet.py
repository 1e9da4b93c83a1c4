"""Parquet files with one image per row, in the layout of Hugging Face's data sets.

The image column is a struct of `bytes` and `path`, or plain bytes. The label column has numbers, whose names are in the
schema's metadata, or words, or lists of either for multi-label images. Parquet can only be read in groups of rows. So
all images are read into memory, or, if they are large, copied once to a memory-mapped file in the cache folder.
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

from unmask.annotations import UNKNOWN, ClassLabels
from unmask.data import cache
from unmask.data.cache import size_and_time
from unmask.data.image_files import EncodedImages, Listing
from unmask.data.labels import (
    Labels,
    Names,
    as_word,
    fingerprint,
    several_labels,
    unlabelled,
    word_labels,
)
from unmask.data.splits import Division, divided, find_files, split_of
from unmask.errors import DataError, ResourceError
from unmask.files import write_whole

_IN_MEMORY = 2**31  # bytes of images
_IMAGE_NAMES = ("image", "img", "jpg", "png", "bytes")
_LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "category")
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
            DataError: if a file is not Parquet or has no column of images.
            ResourceError: if the images cannot be copied to the cache folder.
        """
        division = self._division()
        if split not in division.parts:
            raise DataError(f"{self.path} has no Parquet files for {split}")
        source = _open(division.parts[split], self.path)
        source.beside = Counter({file.name: _rows_in(file) for file in division.beside})
        if division.val:
            rows = sum(map(_rows_in, division.val))
            source.more_notes += (
                f"{rows:,} images in {division.val[0].name} and the like are not used; the test split has its own files",
            )
        return source

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
        return Division({"train": files}, [], [])


def _rows_in(file: Path) -> int:
    """The number of rows; raises DataError if it is not a Parquet file."""
    try:
        return pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(file, error) from None


def _not_parquet(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} is not a Parquet file, or truncated ({str(error).splitlines()[0]})")


class _Layout(NamedTuple):
    """The columns of images and labels."""

    image: str
    nested: bool
    """Whether the image column is a struct with bytes."""
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
                "keep files with the same columns in one folder"
            )
    state = fingerprint([f"{file.absolute()} {size_and_time(file)}" for file in files])
    images = pa.chunked_array(_chunks(files, layout, state))
    sizes = pc.call_function("binary_length", [images])
    names = [f"{f.name}:{row}" for f in files for row in range(pq.read_metadata(f).num_rows)]
    valid = sizes.is_valid().to_numpy()
    missing = [(name, "has no bytes (null)") for name in np.array(names)[~valid].tolist()]
    rows = np.flatnonzero(valid)
    valid_names = Names(names).rows(rows)
    valid_sizes = sizes.drop_null().to_numpy().astype(np.int64)
    listing = Listing(
        names=valid_names,
        sizes=valid_sizes,
        labels=_labels(files, layout, len(names)).rows(rows),
        refused=missing,
        others=Counter(),
        fingerprint=fingerprint(valid_names, valid_sizes),
        state=state,
    )
    return EncodedImages(Rows(where, images, rows), listing)


class Rows:
    """The bytes in the rows of a table."""

    def __init__(self, where: str, images: pa.ChunkedArray, rows: NDArray[np.int64]) -> None:
        self.where, self._images, self._rows = where, images, rows

    def head(self, row: int) -> io.BytesIO:
        """The whole file: it is in memory already."""
        return io.BytesIO(self.read(row))

    whole = head

    def read(self, row: int) -> bytes:
        """The bytes of an image."""
        return self._images[int(self._rows[row])].as_py()


def _layout(file: Path) -> _Layout:
    """Find the columns of a file; raises DataError with the list of columns, if none has images."""
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(file, error) from None
    features = _features(schema)
    images = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    marked = [name for name in images if _type_of(features, name) == "Image"]
    named = [name for name in _IMAGE_NAMES if name in images]
    chosen = [*marked, *named, *(images if len(images) == 1 else [])]
    if not chosen:
        columns = ", ".join(f"{name} ({schema.field(name).type})" for name in schema.names)
        raise DataError(
            f"{file} has no image column, only {columns}; an image column must have encoded bytes, "
            "or a struct of bytes and path. Name it image"
        )
    image = chosen[0]
    label = _label_column(schema, features)
    several = label is not None and _is_list(schema.field(label).type)
    names = _class_names(features, label or "")
    return _Layout(image, pa.types.is_struct(schema.field(image).type), label, several, names)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of the columns; empty without one."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(metadata.get("info", {}).get("features", {}))
    except (ValueError, AttributeError):
        return {}


def _type_of(features: dict[str, Any], column: str) -> str | None:
    feature = features.get(column)
    return feature.get("_type") if isinstance(feature, dict) else None


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
    """The class names of a column, or of the elements of its lists."""
    feature = features.get(label, {})
    if isinstance(feature, list):  # older versions of `datasets` describe lists in this way
        feature = feature[0] if feature else {}
    feature = feature.get("feature", feature)
    return tuple(feature.get("names") or ())


def _in_words(layout: _Layout) -> str:
    label = f"labels {layout.label}" if layout.label else "no labels"
    label += " (lists)" if layout.several else ""
    classes = f" of {len(layout.class_names)} classes" if layout.class_names else ""
    return f"images {layout.image}{' (a struct)' if layout.nested else ''}, {label}{classes}"


def _labels(files: list[Path], layout: _Layout, count: int) -> Labels:
    """The label of each row, unknown if it is null; raises DataError for a label without a class name."""
    if layout.label is None:
        return unlabelled(count)
    columns = [pq.read_table(file, columns=[layout.label]).column(0) for file in files]
    labels = [label for column in columns for label in column.to_pylist()]
    if not layout.class_names:
        words = [as_word(label) if isinstance(label, list) else label for label in labels]
        words = ["" if word is None else str(word) for word in words]
        return word_labels(words, {}) or unlabelled(count)
    _check_named(labels, layout)
    if layout.several:
        words = map(str, range(len(layout.class_names)))
        lists = [None if label is None else [str(one) for one in label] for label in labels]
        return several_labels(lists, words, layout.class_names)
    numbers = np.array([UNKNOWN if label is None else label for label in labels])
    return Labels(ClassLabels(names=layout.class_names), np.maximum(numbers, UNKNOWN))


def _check_named(labels: list[Any], layout: _Layout) -> None:
    """Refuse class numbers without a name in the schema."""
    count = len(layout.class_names)
    lists = [label if isinstance(label, list) else [label] for label in labels]
    highest = max((one for several in lists for one in several if one is not None), default=0)
    if highest >= count:
        raise DataError(
            f"label {highest} of column {layout.label} has no class name: the schema has {count} "
            "classes, counted from 0"
        )


def _chunks(files: list[Path], layout: _Layout, state: str) -> list[Any]:
    """The images' bytes as Arrow arrays, in memory or memory-mapped from a copy in the cache folder."""
    size = sum(_bytes_of(file, layout.image) for file in files)
    if size <= _IN_MEMORY:
        return [chunk for file in files for chunk in _read(file, layout)]
    path = cache.cache_folder() / f"parquet-{state}.arrow"
    if not path.exists():
        _copy(files, layout, path, size)
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as table:
        return [table.get_batch(i).column(0) for i in range(table.num_record_batches)]


def _bytes_of(file: Path, column: str) -> int:
    """Uncompressed size of a column in bytes."""
    metadata = pq.read_metadata(file)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    parts = (chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    return sum(part.total_uncompressed_size for part in parts)


def _read(file: Path, layout: _Layout) -> Iterator[Any]:
    """The bytes of a file's images, in arrays of up to 1,000 rows."""
    column = f"{layout.image}.bytes" if layout.nested else layout.image
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(1000, columns=[column]):
            array = batch.column(0)
            yield array.flatten()[0] if layout.nested else array  # a null row has null bytes


def _copy(files: list[Path], layout: _Layout, path: Path, size: int) -> None:
    """Write the images to a file that can be memory-mapped.

    Raises:
        ResourceError: if the disk is full or the folder cannot be written.
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
            f"cannot copy the images to {path.parent} ({error}), and Parquet does not support random access; "
            "free disk space there, or store the images in tar shards or a folder"
        ) from None
