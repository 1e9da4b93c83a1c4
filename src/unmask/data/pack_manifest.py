"""The manifest of a folder of packed shards, `unmask-pack.json`, and the index next to each shard.

The manifest is written first, so that an unfinished folder can be recognised; it lists the shards when all are
complete. The index of `train-000003.tar` is `train-000003.arrow`. It has the name, label, offset, size and checksum of
each image, and the size, modification time and SHA-256 of the shard for which the index is valid.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from unmask.annotations import ClassLabels, MultiLabels, Unlabelled
from unmask.data.band_files import Frames
from unmask.data.cache import read_table, write_table
from unmask.data.tar_index import COLUMNS, fits
from unmask.errors import DataError, SettingsError
from unmask.files import read_json, write_text, write_whole
from unmask.spec import from_json, to_json, within

PACK = "unmask-pack.json"
_FORMAT_VERSION = 1
_MOST_CHANNELS = 100_000  # far above those of any image
INDEX_COLUMNS = pa.schema(
    [
        *COLUMNS,
        pa.field("crc32", pa.uint32()),
        pa.field("height", pa.int64()),
        pa.field("width", pa.int64()),
    ]
)
"""The columns of the index next to a shard."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The settings that determine the contents of the shards."""

    short_side: int = 256
    """Shorter side that larger images are resized to, in pixels; smaller images keep their size."""

    quality: int = 90
    """JPEG quality of images that are encoded again, 1 to 100."""

    shard_mib: int = 256
    """Size at which a shard is closed, in MiB."""

    channels: tuple[int, ...] = ()
    """Channels of multi-band images to pack, counted from 1; all if empty."""

    no_data: float | None = None
    """Value of multi-band images that means missing, if it was given."""

    frames: Frames | None = None
    """Whether frames and pages are pictures or bands, if it was given."""

    bands: tuple[str, ...] = ()
    """Words in the names of files that hold one band each."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "short_side", "shard_mib")
        within(self, "[1, 100]", "quality")


@dataclass(frozen=True, kw_only=True)
class PackedSplit:
    """A packed split."""

    images: int
    """Number of images, including those that were set aside while packing."""

    fingerprint: str
    """Hash of their names and sizes."""

    channels: int
    """1 for grey, 3 for colour, or the number of bands."""

    class_names: tuple[str, ...]
    """Names of the classes by number, as used in `.cls` and `.json`."""

    levels: tuple[float, float] | None = None
    """The range of 16-bit values that became 0 to 255; None if there were no such images."""

    several_classes: bool = False
    """Whether an image may belong to several classes; then `.json` lists them."""

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= _MOST_CHANNELS:
            raise SettingsError(
                f"channels must be from 1 to {_MOST_CHANNELS:,}, got {self.channels}"
            )

    @property
    def annotations(self) -> Unlabelled | ClassLabels | MultiLabels:
        """The kind of annotations of the images."""
        if self.several_classes:
            return MultiLabels(names=self.class_names)
        return ClassLabels(names=self.class_names) if self.class_names else Unlabelled()


@dataclass(frozen=True, kw_only=True)
class PackedShard:
    """A complete shard."""

    bytes: int
    """Size of the file."""

    sha256: str
    """Checksum of the file."""

    first: int
    """Position of its first image in the split."""

    end: int
    """Position after its last image; images that could not be decoded are skipped."""

    images: int
    """Number of images in the shard."""

    copied: int
    """Number of images that were copied bit for bit."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The contents of `unmask-pack.json`."""

    format_version: int = _FORMAT_VERSION
    """Version of the format of this file and of the indexes."""

    packing: Packing
    """The settings."""

    splits: dict[str, PackedSplit]
    """The splits by name."""

    shards: dict[str, PackedShard]
    """All shards by name, once all are complete."""

    finished: bool
    """Whether all shards are complete."""


class ShardIndex(NamedTuple):
    """The index of a shard."""

    shard: PackedShard
    changed: int
    """Modification time of the shard when the index was written, in ns."""
    table: pa.Table


class _Newer(DataError):
    """A manifest of a later version of this package."""


def read_pack(folder: Path) -> Pack | None:
    """The manifest of a folder; None if it has none. Raises DataError if the manifest cannot be read."""
    path = folder / PACK
    try:
        data = read_json(path)
        version = data.get("format_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > _FORMAT_VERSION:
            raise _Newer(
                f"{path} has format {version}, but this version of unmask reads formats up to {_FORMAT_VERSION}; "
                "update unmask"
            )
        return from_json(Pack, data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _Newer:
        raise
    except (OSError, ValueError, DataError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); copy it again, or remove it: the shards can be read without it"
        ) from None


def write_pack(folder: Path, pack: Pack) -> None:
    """Write the manifest of a folder."""
    write_text(folder / PACK, json.dumps(to_json(pack), indent=1) + "\n")


def write_index(shard: Path, index: ShardIndex) -> None:
    """Write the index of a shard."""
    note = {"shard": to_json(index.shard), "changed": index.changed, "version": _FORMAT_VERSION}
    write_whole(shard.with_suffix(".arrow"), lambda path: write_table(path, index.table, note))


def read_index(shard: Path) -> ShardIndex | None:
    """The index next to a shard; None if it is missing or cannot be read."""
    table, note = read_table(shard.with_suffix(".arrow")) or (None, {})
    if table is None or table.schema.names != INDEX_COLUMNS.names:
        return None
    if note.get("version") != _FORMAT_VERSION:
        return None
    try:
        return ShardIndex(from_json(PackedShard, note["shard"]), int(note["changed"]), table)
    except (ValueError, KeyError, TypeError):
        return None


def size_and_written(shard: Path) -> tuple[int, int]:
    """Size of a shard and when it was last written. Both survive renaming, and copying with times."""
    status = shard.stat()
    return status.st_size, status.st_mtime_ns


def valid_index(shard: Path) -> ShardIndex | None:
    """The index next to a shard, if the shard has not changed since; else None.

    Raises:
        DataError: if the columns of the index have other types, or an image is not inside the shard.
    """
    index = read_index(shard)
    if index is None or size_and_written(shard) != (index.shard.bytes, index.changed):
        return None
    if not fits(index.table, INDEX_COLUMNS, index.shard.bytes):
        raise DataError(
            f"{shard.with_suffix('.arrow')} is not an index of {shard.name}: its columns have other types, or its images "
            "are not inside the shard; remove it, and the shard is indexed again"
        )
    return index


def check_packed(folder: Path, pack: Pack, shards: list[Path]) -> None:
    """Refuse a packed folder that is not complete. `shards` are all tar files in it.

    Raises:
        DataError: if a shard is missing, truncated, or does not belong to the folder.
    """
    check_finished(folder, pack)
    paths = {shard.name: shard for shard in shards}
    remedy = (
        "copy it again, or run the same `unmask pack` command again: it writes only what is missing"
    )
    if missing := [name for name in pack.shards if name not in paths]:
        raise DataError(
            f"{folder / missing[0]} is missing, one of {len(pack.shards)} shards; {remedy}"
        )
    if foreign := sorted(paths.keys() - pack.shards.keys()):
        raise DataError(
            f"{folder / foreign[0]} is not one of the {len(pack.shards)} shards that were packed there; "
            "move it elsewhere"
        )
    for name, facts in pack.shards.items():
        if (size := paths[name].stat().st_size) != facts.bytes:
            raise DataError(
                f"{folder / name} has {size:,} bytes instead of {facts.bytes:,}: it is "
                f"{'truncated' if size < facts.bytes else 'another file'}; {remedy}"
            )


def check_finished(folder: Path, pack: Pack) -> None:
    """Raises DataError, with the command to continue, if packing was interrupted."""
    if not pack.finished:
        raise DataError(
            f"packing into {folder} was interrupted; run the same command again to continue: "
            f"`unmask pack DATA {shlex.quote(str(folder))} {flags_of(pack.packing)}`"
        )


def flags_of(packing: Packing) -> str:
    """The settings as flags of `unmask pack`."""
    flags = f"--short-side {packing.short_side} --quality {packing.quality} --shard-mib {packing.shard_mib}"
    if packing.frames:
        flags += f" --frames {packing.frames}"
    if packing.bands:
        flags += f" --bands {shlex.quote(','.join(packing.bands))}"
    if packing.channels:
        flags += f" --channels {','.join(map(str, packing.channels))}"
    return flags if packing.no_data is None else f"{flags} --no-data {packing.no_data:g}"
