"""What a folder of packed shards says of itself: `unmask-pack.json` of the whole, and an index beside each shard.

`unmask-pack.json` lies there from the first moment, so that an unfinished folder is known for one; it lists the
shards when all are whole. The index of `train-000003.tar` is `train-000003.arrow`: each image's name, label, place,
size and checksum, and the bytes, time of change and SHA-256 of the shard that all this holds for.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import feather

from unmask.annotations import ClassLabels, MultiLabels, Unlabelled
from unmask.data.tar_index import COLUMNS
from unmask.errors import DataError, SettingsError
from unmask.files import write_whole
from unmask.spec import from_json, to_json

PACK = "unmask-pack.json"
_FORMAT_VERSION = 1
INDEX_COLUMNS = pa.schema(
    [
        *COLUMNS,
        pa.field("crc32", pa.uint32()),
        pa.field("height", pa.int64()),
        pa.field("width", pa.int64()),
    ]
)
"""What the index beside a shard says of each image."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How images are packed: all that changes what the shards hold."""

    short_side: int = 256
    """Pixels of the shorter side of what is larger; smaller images keep their size."""

    quality: int = 90
    """JPEG quality of images that are encoded anew, 1 to 100."""

    shard_mib: int = 256
    """A shard is closed by the image that brings it to this size, MiB."""

    channels: tuple[int, ...] = ()
    """Channels of multi-band images that were taken, counted from 1; all if empty."""

    no_data: float | None = None
    """The value of multi-band images that meant that there is none, if one was given."""

    def __post_init__(self) -> None:
        for name in ("short_side", "shard_mib"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise SettingsError(f"--{flag} must be at least 1, got {getattr(self, name)}")
        if not 1 <= self.quality <= 100:
            raise SettingsError(f"--quality is a number from 1 to 100, got {self.quality}")


@dataclass(frozen=True, kw_only=True)
class PackedSplit:
    """A split of the images that were packed."""

    images: int
    """How many there were, those included that were set aside when they were read."""

    fingerprint: str
    """Of their names and sizes."""

    channels: int
    """1 for grey, 3 for colour, or the number of bands."""

    class_names: tuple[str, ...]
    """The classes that the numbers in `.cls`, or in `.json`, stand for."""

    several_classes: bool = False
    """Whether an image may belong to several classes; then `.json` lists them."""

    @property
    def annotations(self) -> Unlabelled | ClassLabels | MultiLabels:
        """What is known of the images."""
        if self.several_classes:
            return MultiLabels(names=self.class_names)
        return ClassLabels(names=self.class_names) if self.class_names else Unlabelled()


@dataclass(frozen=True, kw_only=True)
class PackedShard:
    """A whole shard."""

    bytes: int
    """Its size."""

    sha256: str
    """Checksum of the file."""

    first: int
    """Position of its first image in the split."""

    end: int
    """Position after its last image; those between that could not be decoded are left out."""

    images: int
    """How many it holds."""

    copied: int
    """How many of these are files copied bit for bit."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The contents of `unmask-pack.json`."""

    format_version: int = _FORMAT_VERSION
    """Of this file and of the indexes."""

    packing: Packing
    """How the images were packed."""

    splits: dict[str, PackedSplit]
    """What was packed."""

    shards: dict[str, PackedShard]
    """Every shard by its name, once all are whole."""

    finished: bool
    """Whether all are."""


class ShardIndex(NamedTuple):
    """What an index says of a shard."""

    shard: PackedShard
    changed: int
    """Time of change of the shard when the index was written, ns."""
    table: pa.Table


def read_pack(folder: Path) -> Pack | None:
    """What a folder says of itself; None if it is no packed one.

    Raises:
        DataError: if that cannot be understood.
    """
    path = folder / PACK
    try:
        data = json.loads(path.read_text())
        version = data.get("format_version", 0)
        if version > _FORMAT_VERSION:
            raise DataError(
                f"{path} is of format {version}, and this unmask reads up to {_FORMAT_VERSION}; update it"
            )
        return from_json(Pack, data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be understood ({error}); copy it anew, or remove it: the shards can be read without it"
        ) from None


def write_pack(folder: Path, pack: Pack) -> None:
    """Write the manifest of a folder."""
    text = json.dumps(to_json(pack), indent=1) + "\n"
    write_whole(folder / PACK, lambda path: path.write_text(text))


def index_path(shard: Path) -> Path:
    """Where the index of a shard lies."""
    return shard.with_suffix(".arrow")


def write_index(shard: Path, index: ShardIndex) -> None:
    """Write the index of a shard."""
    note = {"shard": to_json(index.shard), "changed": index.changed, "version": _FORMAT_VERSION}
    table = index.table.replace_schema_metadata({"unmask": json.dumps(note)})
    write_whole(
        index_path(shard),
        lambda path: feather.write_feather(table, str(path), compression="uncompressed"),
    )


def read_index(shard: Path) -> ShardIndex | None:
    """The index beside a shard; None if there is none that can be understood."""
    try:
        table = feather.read_table(index_path(shard))
        note = json.loads((table.schema.metadata or {})[b"unmask"])
        if note["version"] != _FORMAT_VERSION or table.schema.names != INDEX_COLUMNS.names:
            return None
        return ShardIndex(from_json(PackedShard, note["shard"]), int(note["changed"]), table)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None


def size_and_written(shard: Path) -> tuple[int, int]:
    """Bytes of a shard and when they were last written: renaming it, or copying it with its times, keeps both."""
    found = shard.stat()
    return found.st_size, found.st_mtime_ns


def valid_index(shard: Path) -> ShardIndex | None:
    """The index beside a shard, if the shard is as it was when the index was written."""
    index = read_index(shard)
    if index is None or size_and_written(shard) != (index.shard.bytes, index.changed):
        return None
    return index


def check_packed(folder: Path, pack: Pack, shards: list[Path]) -> None:
    """Refuse a packed folder that is not whole, `shards` being all tar files in it.

    Raises:
        DataError: naming a shard that is missing, cut off, or not of this set.
    """
    check_finished(folder, pack)
    found = {shard.name: shard for shard in shards}
    again = "copy it anew, or run the `unmask pack` that made it once more: it makes only what is missing"
    for name in pack.shards:
        if name not in found:
            raise DataError(
                f"{folder / name} is missing, one of {len(pack.shards)} shards; {again}"
            )
    if odd := sorted(found.keys() - pack.shards.keys()):
        raise DataError(
            f"{folder / odd[0]} is not one of the {len(pack.shards)} shards that were packed there; "
            "move it elsewhere"
        )
    for name, facts in pack.shards.items():
        if (size := found[name].stat().st_size) != facts.bytes:
            raise DataError(
                f"{folder / name} has {size:,} bytes, and {facts.bytes:,} were packed: it is "
                f"{'cut off' if size < facts.bytes else 'another file'}; {again}"
            )


def check_finished(folder: Path, pack: Pack) -> None:
    """Raises DataError if the packing was interrupted, saying how to go on."""
    if not pack.finished:
        raise DataError(
            f"{folder} is not packed to its end; give the same command once more, `unmask pack DATA {folder} "
            f"{flags_of(pack.packing)}`, and it goes on where it stopped"
        )


def flags_of(packing: Packing) -> str:
    """The settings as they are typed."""
    words = [
        f"--short-side {packing.short_side} --quality {packing.quality} --shard-mib {packing.shard_mib}"
    ]
    if packing.channels:
        words.append(f"--channels {','.join(map(str, packing.channels))}")
    if packing.no_data is not None:
        words.append(f"--no-data {packing.no_data:g}")
    return " ".join(words)
