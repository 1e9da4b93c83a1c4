"""One part of a folder of vectors: a Parquet file that is written whole or not at all.

Columns: name, split, label (a class name, or a list of them), width, height, hash (BLAKE2b of the picture's file; of its
pixels where there is no file of its own) and vector. The metadata of the schema, under `unmask`, says which encoder made them.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Shaped
from numpy.typing import NDArray

from unmask.errors import DataError
from unmask.files import parse_json, write_whole
from unmask.traits import Places

COLUMNS = ("name", "split", "label", "width", "height", "hash")
"""All columns but the vectors, and those of places."""

PLACE_COLUMNS = ("longitude", "latitude", "tile_metres", "row", "column")
"""Of tiles of maps: the middle in degrees of WGS 84, the side, and the place in the grid of its size."""

VECTOR = "vector"
_KEY = b"unmask"
_SPARSE = ("split", "label")  # few values, often repeated


class Part(NamedTuple):
    """The rows of a part, in the order of their pictures."""

    names: list[str]
    splits: list[str]
    labels: list[str | None] | list[list[str] | None]
    sizes: list[tuple[int, int]]
    """Height and width of each picture before the crop."""
    hashes: list[str]
    vectors: Float[NDArray[Any], "n d"]
    unusable: list[tuple[str, str, str]]
    """(split, name, reason) of pictures without a vector."""
    places: Places | None = None
    """Where the pictures lie on the Earth, if that is known."""


class Facts(NamedTuple):
    """What the footer of a part says, without reading its rows."""

    path: Path
    rows: int
    encoding: str
    """Hash of the encoding, see `Encoding.hash`."""
    checksum: str
    unusable: list[tuple[str, str, str]]
    several: bool
    """Whether labels are lists of classes."""
    placed: bool
    """Whether it has `PLACE_COLUMNS`."""


def part_path(root: Path, number: int) -> Path:
    """The file of a part."""
    return root / f"part-{number:05}.parquet"


def write_part(path: Path, part: Part, facts: dict[str, Any], several: bool) -> None:
    """Write a part; `facts` describe the encoder, and `several` says that a picture may have several labels."""
    width = part.vectors.shape[1]
    stored = pa.float16() if part.vectors.dtype == np.float16 else pa.float32()
    values = pa.array(np.ascontiguousarray(part.vectors).reshape(-1), stored)
    label = pa.list_(pa.string()) if several else pa.string()
    content = {**facts, "checksum": checksum(part.vectors), "unusable": part.unusable}
    table = pa.table(
        {
            "name": pa.array(part.names, pa.string()),
            "split": pa.array(part.splits, pa.string()),
            "label": pa.array(part.labels, label),
            "width": pa.array([width for _, width in part.sizes], pa.int32()),
            "height": pa.array([height for height, _ in part.sizes], pa.int32()),
            "hash": pa.array(part.hashes, pa.string()),
            **_place_columns(part.places),
            VECTOR: pa.FixedSizeListArray.from_arrays(values, width),
        },
        metadata={
            _KEY: json.dumps(content),
            **({} if part.places is None else {b"geo": json.dumps(_GEO)}),
        },
    )
    # floats of vectors hardly shrink, and reading them plain is several times as fast
    write_whole(
        path,
        lambda temporary: pq.write_table(
            table,
            temporary,
            compression="none",
            use_dictionary=list(_SPARSE),  # pyright: ignore[reportArgumentType]
        ),
    )


_GEOMETRY = "geometry"
_GEO = {
    "version": "1.1.0",
    "primary_column": _GEOMETRY,
    "columns": {_GEOMETRY: {"encoding": "WKB", "geometry_types": ["Point"]}},
}
"""What GeoParquet 1.1 asks a file to say of itself; without a system, longitudes and latitudes of WGS 84 are meant."""

_POINT = struct.Struct("<BIdd")  # well-known binary: little endian, 1 is a point, x, y


def _place_columns(places: Places | None) -> dict[str, pa.Array]:
    """The columns of GeoParquet and of `PLACE_COLUMNS`; none if places are not known."""
    if places is None:
        return {}
    columns = (*places.degrees.T, places.metres, *places.cells.T)
    points = [_POINT.pack(1, 1, *point) for point in places.degrees.tolist()]
    named = zip(PLACE_COLUMNS, columns, strict=True)
    return {name: pa.array(column) for name, column in named} | {
        _GEOMETRY: pa.array(points, pa.binary())
    }


def read_places(parts: Sequence[Facts]) -> Places | None:
    """The places of the pictures of all parts; None if a part does not know them."""
    if not all(part.placed for part in parts):
        return None
    table = read_columns(parts, PLACE_COLUMNS)
    longitude, latitude, metres, row, column = (table[name].to_numpy() for name in PLACE_COLUMNS)
    return Places(
        np.stack([longitude, latitude], 1), metres, np.stack([row, column], 1).astype(np.int64)
    )


def read_facts(path: Path) -> Facts:
    """The footer of a part.

    Raises:
        DataError: if the file is truncated, or not a part of vectors.
    """
    with _readable(path):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        content = parse_json((schema.metadata or {})[_KEY], str(path))
        unusable = [(str(a), str(b), str(c)) for a, b, c in content["unusable"]]
        if not {*COLUMNS, VECTOR} <= set(schema.names):
            raise DataError(f"has the columns {', '.join(schema.names)}")
        return Facts(
            path,
            file.metadata.num_rows,
            str(content["encoding_hash"]),
            str(content["checksum"]),
            unusable,
            pa.types.is_list(schema.field("label").type),
            set(PLACE_COLUMNS) <= set(schema.names),
        )


def read_columns(parts: Sequence[Facts], columns: Sequence[str] = COLUMNS) -> pa.Table:
    """Columns of all parts, without the vectors; labels are lists of classes if they are in any part."""
    several = any(part.several for part in parts)
    tables: list[pa.Table] = []
    for part in parts:
        with _readable(part.path):
            table = _read(part.path, columns).replace_schema_metadata(None)
        if several and not part.several and "label" in columns:
            lists = [None if label is None else [label] for label in table["label"].to_pylist()]
            place = table.schema.get_field_index("label")
            table = table.set_column(place, "label", pa.array(lists, pa.list_(pa.string())))
        tables.append(table)
    return pa.concat_tables(tables)


def read_vectors(part: Facts) -> Shaped[NDArray[Any], "n d"]:
    """The vectors of a part, as they are stored.

    Raises:
        DataError: if the file is damaged, or a vector is not finite.
    """
    with _readable(part.path):
        column = _read(part.path, [VECTOR])[VECTOR].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else None
        if column is None or column.null_count:
            raise DataError("has rows without a vector")
        vectors = column.flatten().to_numpy(zero_copy_only=False)
        vectors = vectors.reshape(len(column), column.type.list_size)
    if not np.isfinite(vectors).all():
        row = int((~np.isfinite(vectors)).any(1).argmax())
        name = read_columns([part], ["name"])["name"][row].as_py()
        raise DataError(
            f"{part.path}: the vector of {name} has values that are not finite; {REMEDY}"
        )
    if checksum(vectors) != part.checksum:
        raise DataError(f"{part.path}: its vectors are not those that were written; {REMEDY}")
    return vectors


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a file; `pq.read_table` would import pyarrow.dataset, which takes longer than reading a small file."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns))


REMEDY = "remove the file and run the same `unmask embed` again, which makes only what is missing"


def checksum(vectors: Shaped[NDArray[Any], "n d"]) -> str:
    """A hash of the bytes of all vectors."""
    return hashlib.blake2b(np.ascontiguousarray(vectors).tobytes(), digest_size=16).hexdigest()


class _readable:
    """Turns the errors of damaged files into ours, with the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(
            error, (OSError, pa.ArrowException, KeyError, TypeError, ValueError, DataError)
        ):
            reason = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            if isinstance(error, KeyError):
                reason = "it does not say which encoder made it"
            raise DataError(
                f"{self.path} is truncated or not a part of vectors ({reason}); {REMEDY}"
            ) from None
