"""Any source to indexed tar shards, in parallel; the shards are the same for any number of processes.

A shard is written beside its place, with its index, and renamed when it is whole. A process that is killed leaves
whole shards and at most one that is not: the next one keeps the former and makes the latter anew.
"""

import fcntl
import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch.utils.data import Dataset

from unmask.annotations import UNKNOWN, MultiLabels, whole_image_only
from unmask.contracts import ImageSource
from unmask.data.labels import as_word
from unmask.data.loader import fetched
from unmask.data.pack_bytes import Stored, stored
from unmask.data.pack_manifest import (
    INDEX_COLUMNS,
    PACK,
    Pack,
    PackedShard,
    PackedSplit,
    Packing,
    ShardIndex,
    flags_of,
    read_index,
    read_pack,
    size_and_written,
    write_index,
    write_pack,
)
from unmask.data.set_aside import SetAside
from unmask.data.tar_index import ARRAY_ENDING, ORIGINAL_NAME
from unmask.data.tar_write import ShardWriter
from unmask.errors import ResourceError, RunError, UnmaskError
from unmask.files import is_unfinished
from unmask.spec import to_json

_CHUNK = 16
_LOCK = ".lock"
_WRITING = ".writing-"
_OURS = (PACK, _LOCK)

Tried = tuple[int, Stored | UnmaskError]
"""A position, and what to store of its image, or why that cannot be."""


Label = int | list[int] | None
"""The number of a class, or of each of several; None if it is not known."""


class Progress(NamedTuple):
    """How far the packing has come."""

    done: int
    """Images that lie in a shard or are set aside."""
    images: int
    """Of so many."""


class Packer:
    """A folder that the images of some splits are packed into."""

    def __init__(
        self,
        root: Path,
        packing: Packing,
        sources: dict[str, ImageSource],
        *,
        workers: int,
        max_set_aside: float,
    ) -> None:
        self.root, self.packing, self.sources = root, packing, sources
        self.workers, self.max_set_aside = workers, max_set_aside
        self.set_aside = root / "set_aside.csv"
        self.shards: dict[str, PackedShard] = {}
        """Those that are whole so far."""
        self.left_out = 0
        """How many images are set aside so far."""

    def check(self) -> None:
        """Refuse a folder that holds something else, or the same images packed otherwise.

        Raises:
            RunError: naming what differs.
            SettingsError: if annotations say where in an image something is, since images are resized.
        """
        for source in self.sources.values():
            whole_image_only(source.annotations, "a folder of shards")
        if self.root.exists() and not self.root.is_dir():
            raise RunError(f"{self.root} is a file; name a new folder for the shards")
        before = read_pack(self.root)
        if before is not None:
            _check_same(self.root, before, self._pack())
        elif self.root.exists() and any(
            path.name not in _OURS
            and not path.name.startswith(_WRITING)
            and not is_unfinished(path)
            for path in self.root.iterdir()
        ):
            raise RunError(f"{self.root} is not empty, and no packed folder; name a new one")

    def run(self, stop: Event) -> Iterator[Progress]:
        """Pack what is not packed yet; returns early, with whole shards, once `stop` is set.

        Raises:
            RunError: see `check`; or if another process packs into the folder.
            DataError: when too many images cannot be decoded; the list is written by then.
            ResourceError: when the disk is full, or a process dies. Whole shards are kept.
        """
        self.check()
        with self._room(), self._locked():
            self._clear()
            if read_pack(self.root) is None:
                write_pack(self.root, self._pack())
            aside = self._begin_list()
            total, before = sum(map(len, self.sources.values())), 0
            for split, source in self.sources.items():
                for done in self._split(split, source, aside, stop):
                    self.left_out = len(aside.names)
                    yield Progress(before + done, total)
                if stop.is_set():
                    return
                before += len(source)
            write_pack(self.root, replace(self._pack(), shards=self.shards, finished=True))

    def _pack(self) -> Pack:
        splits = {
            name: PackedSplit(
                images=len(source),
                fingerprint=source.fingerprint,
                channels=source.channels,
                class_names=source.annotations.names,
                several_classes=isinstance(source.annotations, MultiLabels),
            )
            for name, source in self.sources.items()
        }
        return Pack(packing=self.packing, splits=splits, shards={}, finished=False)

    def _begin_list(self) -> SetAside:
        found = sum(len(source) + len(source.refused) for source in self.sources.values())
        aside = SetAside(self.set_aside, found, self.max_set_aside)
        for split, source in self.sources.items():
            aside.add([(self._listed(split, name), reason) for name, reason in source.refused])
        return aside

    def _listed(self, split: str, name: str) -> str:
        return f"{split}: {name}" if len(self.sources) > 1 else name

    def _split(
        self, split: str, source: ImageSource, aside: SetAside, stop: Event
    ) -> Iterator[int]:
        """Yields how many images of the split are done."""
        position = number = 0
        stream: Iterator[Tried] | None = None
        while position < len(source):
            shard = self.root / f"{split}-{number:06}.tar"
            facts = _kept(shard, position)
            if facts is None:
                stream = stream or self._encoded(source, position)
                facts = yield from self._write(shard, position, stream, split, aside, stop)
            else:
                stream = None
            if facts is None:
                return
            if facts.images:
                self.shards[shard.name] = facts
            position, number = facts.end, number + 1
            yield position

    def _encoded(self, source: ImageSource, first: int) -> Iterator[Tried]:
        """What to store of each image from a position on, in their order."""
        chunks = [
            range(start, min(start + _CHUNK, len(source)))
            for start in range(first, len(source), _CHUNK)
        ]
        for chunk in fetched(_Encoding(source, self.packing), chunks, self.workers):
            yield from chunk

    def _write(
        self,
        shard: Path,
        first: int,
        stream: Iterator[Tried],
        split: str,
        aside: SetAside,
        stop: Event,
    ) -> Generator[int, None, PackedShard | None]:
        """Write a shard; None if it was stopped before it was whole."""
        source = self.sources[split]
        labels = source.labels()
        writer = ShardWriter(self.root / f"{_WRITING}{shard.stem}")
        rows: list[dict[str, Any]] = []
        copied, position = 0, first - 1
        try:
            for position, image in stream:
                if isinstance(image, RunError | ResourceError):
                    raise image
                if isinstance(image, UnmaskError):
                    name = source.name(position)
                    aside.add([(self._listed(split, name), str(image))])
                else:
                    rows.append(_add(writer, source, position, _label(labels[position]), image))
                    copied += image.copied
                if stop.is_set():
                    return None
                if writer.bytes >= self.packing.shard_mib * 2**20:
                    break
                yield position + 1
            checksum = writer.close()
            facts = PackedShard(
                bytes=writer.bytes,
                sha256=checksum,
                first=first,
                end=position + 1,
                images=len(rows),
                copied=copied,
            )
            if rows:
                table = pa.Table.from_pylist(rows, INDEX_COLUMNS)
                write_index(shard, ShardIndex(facts, size_and_written(writer.path)[1], table))
                writer.path.replace(shard)
            return facts
        finally:
            writer.discard()

    def _clear(self) -> None:
        """Remove what a killed process left unfinished."""
        for path in self.root.iterdir():
            if path.name.startswith(_WRITING) or is_unfinished(path):
                path.unlink()

    @contextmanager
    def _room(self) -> Generator[None]:
        """Say of a folder that cannot be written, or a full disk, what is kept and how to go on."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise ResourceError(
                f"{self.root} cannot be written ({error.strerror or error}); whole shards stay there "
                f"({len(self.shards)}), make room and give the same command again to go on"
            ) from None

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Keep other processes out; the system lets go of it even if this one is killed."""
        with (self.root / _LOCK).open("a+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"another process is packing into {self.root}; wait for it, or name another folder"
                ) from None
            yield


class _Encoding(Dataset[list[Tried]]):
    """What is to be stored of the images of a source."""

    def __init__(self, source: ImageSource, packing: Packing) -> None:
        self.source, self.packing = source, packing

    def __getitems__(self, positions: range) -> list[Tried]:
        """An error is handed over as a value: raised in a worker, it would arrive as a traceback."""
        return [(position, self._one(position)) for position in positions]

    def _one(self, position: int) -> Stored | UnmaskError:
        try:
            return stored(self.source, position, self.packing.short_side, self.packing.quality)
        except UnmaskError as error:
            return error


def _add(
    writer: ShardWriter, source: ImageSource, position: int, label: Label, image: Stored
) -> dict[str, Any]:
    """Write the members of a sample; returns its row in the index."""
    key, name = f"{position:09}", source.name(position)
    about: dict[str, Any] = {ORIGINAL_NAME: name}
    names, word = source.annotations.names, ""
    offset = writer.add(key + image.ending, image.data)
    if isinstance(label, list):
        about |= {"label": label, "class_name": [names[number] for number in label]}
        word = as_word(label)
    elif label is not None:
        writer.add(f"{key}.cls", str(label).encode())
        about |= {"label": label, "class_name": names[label]}
        word = str(label)
    writer.add(f"{key}.json", json.dumps(about).encode())
    return {
        "name": os.fsencode(name),
        "offset": offset,
        "size": len(image.data),
        "label": word,
        "array": image.ending == ARRAY_ENDING,
        "crc32": crc32(image.data),
        "height": image.size.height,
        "width": image.size.width,
    }


def _label(numbers: np.int64 | NDArray[np.int64]) -> Label:
    """The number of a class, or those of several, [classes] of 0 or 1; None if it is not known."""
    if np.all(numbers == UNKNOWN):
        return None
    return np.flatnonzero(numbers).tolist() if isinstance(numbers, np.ndarray) else int(numbers)


def _kept(shard: Path, first: int) -> PackedShard | None:
    """A whole shard that begins at this position; its checksum decides where its time of change differs."""
    index = read_index(shard)
    if index is None or index.shard.first != first or not shard.exists():
        return None
    size, changed = size_and_written(shard)
    if size != index.shard.bytes:
        return None
    if changed != index.changed:
        with shard.open("rb") as file:
            if file_digest(file, "sha256").hexdigest() != index.shard.sha256:
                return None
        write_index(shard, index._replace(changed=changed))
    return index.shard


def _check_same(root: Path, before: Pack, now: Pack) -> None:
    """Raises RunError, naming the first thing in which two packings differ."""
    mend = "pack into a new folder, or remove this one first"
    then, wanted = to_json(before.packing), to_json(now.packing)
    for name, value in wanted.items():
        if then[name] != value:
            raise RunError(
                f"{root} was packed with --{name.replace('_', '-')} {_typed(then[name])}, not {_typed(value)}; {mend}, or "
                f"go on as it was begun: {flags_of(before.packing)}"
            )
    if before.splits.keys() != now.splits.keys():
        raise RunError(
            f"{root} was packed from images with the splits {', '.join(before.splits)}, and these have "
            f"{', '.join(now.splits)}; {mend}"
        )
    for name, split in now.splits.items():
        if before.splits[name] != split:
            raise RunError(
                f"{root} was packed from other images ({before.splits[name].images:,} of {name} then, {split.images:,} now, "
                f"or other names, sizes or classes); {mend}"
            )


def _typed(value: Any) -> str:
    if value in (None, []):
        return "left out"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
