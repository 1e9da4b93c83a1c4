"""Packing any source into indexed tar shards, in parallel; the shards do not depend on the number of processes.

A shard is written under a temporary name, with its index, and renamed when it is complete. If the process is killed,
the next one keeps the complete shards and writes the unfinished one again.
"""

import errno
import json
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from hashlib import file_digest
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unmask.annotations import UNKNOWN, MultiLabels, whole_image_only
from unmask.contracts import ImageSource
from unmask.data.labels import as_word
from unmask.data.loader import Failures, SetAside, chunks, fetched
from unmask.data.pack_bytes import ShardWriter, Stored, stored
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
from unmask.data.tar_index import ARRAY_ENDING, ORIGINAL_NAME
from unmask.errors import DataError, ResourceError, RunError, SettingsError
from unmask.files import is_unfinished
from unmask.locks import Taken, locked
from unmask.spec import to_json
from unmask.traits import Levelled

_CHUNK = 16  # images that a process encodes at a time
_LOCK = ".lock"
_REMEDY = (
    "train on the original images, or pack the pictures alone for pretraining with --pictures-alone"
)
_WRITING = ".writing-"
_OURS = (PACK, _LOCK)

EncodingResult = tuple[int, Stored | DataError | SettingsError]
"""A position, and its encoded image, or why it cannot be encoded."""


class Progress(NamedTuple):
    """Progress of packing."""

    done: int
    """Number of images that are in a shard or set aside."""
    images: int
    """Number of all images."""


class Packer:
    """Packs the images of one or two splits into a folder."""

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
        """The complete shards so far."""
        self.left_out = 0
        """Number of images set aside so far."""
        self.note = ""
        """A note if the file system has no locks."""

    def check(self) -> None:
        """Refuse a folder with other files, other images, or images packed with other settings.

        Raises:
            RunError: with the difference.
            SettingsError: if annotations are class maps or boxes, which do not follow the resized images.
        """
        for source in self.sources.values():
            whole_image_only(source.annotations, "a folder of shards", _REMEDY)
        if self.root.exists() and not self.root.is_dir():
            raise RunError(f"{self.root} is a file; choose a new folder for the shards")
        before = read_pack(self.root)
        if before is not None:
            _check_same(self.root, before, self._pack())
        elif self.root.exists() and any(
            path.name not in _OURS
            and not path.name.startswith(_WRITING)
            and not is_unfinished(path)
            for path in self.root.iterdir()
        ):
            raise RunError(
                f"{self.root} is neither empty nor a folder of packed shards; choose a new folder"
            )

    def run(self, stop: Event) -> Iterator[Progress]:
        """Pack the images that are not packed yet. Once `stop` is set, return early with complete shards.

        Raises:
            RunError: see `check`; or if another process is packing into the folder.
            DataError: if too many images cannot be decoded; `set_aside.csv` lists them.
            ResourceError: if the disk is full or a process dies. Complete shards are kept.
        """
        self.check()
        with self._reporting_disk_errors(), self._locked():
            for path in self.root.iterdir():  # unfinished files of a process that was killed
                if path.name.startswith(_WRITING) or is_unfinished(path):
                    path.unlink()
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
                levels=source.levels if isinstance(source, Levelled) else None,
                class_names=source.annotations.names,
                several_classes=isinstance(source.annotations, MultiLabels),
            )
            for name, source in self.sources.items()
        }
        return Pack(packing=self.packing, splits=splits, shards={}, finished=False)

    def _begin_list(self) -> SetAside:
        total = sum(len(source) + len(source.refused) for source in self.sources.values())
        aside = SetAside(self.set_aside, total, self.max_set_aside)
        for split, source in self.sources.items():
            aside.add([(self._listed(split, name), reason) for name, reason in source.refused])
        return aside

    def _listed(self, split: str, name: str) -> str:
        return f"{split}: {name}" if len(self.sources) > 1 else name

    def _split(
        self, split: str, source: ImageSource, aside: SetAside, stop: Event
    ) -> Iterator[int]:
        """Pack a split; yields the number of its images that are done."""
        position = number = 0
        stream: Iterator[EncodingResult] | None = None
        while position < len(source):
            shard = self.root / f"{split}-{number:06}.tar"
            if (facts := _complete_shard(shard, position)) is not None:
                stream = None
            else:
                stream = stream or self._encoded(source, position)
                facts = yield from self._write(shard, position, stream, split, aside, stop)
                if facts is None:
                    return
            if facts.images:
                self.shards[shard.name] = facts
            position, number = facts.end, number + 1
            yield position

    def _encoded(self, source: ImageSource, first: int) -> Iterator[EncodingResult]:
        """The encoded images from a position on, in order."""
        parts = chunks(range(first, len(source)), _CHUNK)
        for part in fetched(partial(_encoded, source, self.packing), parts, self.workers):
            yield from part

    def _write(
        self,
        shard: Path,
        first: int,
        stream: Iterator[EncodingResult],
        split: str,
        aside: SetAside,
        stop: Event,
    ) -> Generator[int, None, PackedShard | None]:
        """Write a shard; None if `stop` is set before it is complete."""
        source = self.sources[split]
        labels = source.labels()
        writer = ShardWriter(self.root / f"{_WRITING}{shard.stem}")
        rows: list[dict[str, Any]] = []
        copied, position = 0, first - 1
        try:
            for position, image in stream:
                if not isinstance(image, Stored):
                    name = source.name(position)
                    aside.add([(self._listed(split, name), str(image))])
                else:
                    rows.append(_add(writer, source, position, labels[position], image))
                    copied += image.copied
                if stop.is_set():
                    return None
                if writer.bytes >= self.packing.shard_mib * 2**20:
                    break
                yield position + 1
            checksum = writer.close()  # also completes `writer.bytes`
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

    @contextmanager
    def _reporting_disk_errors(self) -> Generator[None]:
        """If the folder cannot be written or the disk is full, report what is kept and how to continue."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "Free some disk space" if is_full else "Make it writable"
            raise ResourceError(
                f"{self.root} cannot be written ({error.strerror or error}); {len(self.shards)} complete shards are kept. "
                f"{remedy} and run the same command again to continue"
            ) from None

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Lock the folder against other processes; the system releases the lock even if this process is killed."""
        with ExitStack() as stack:
            try:
                self.note = stack.enter_context(locked(self.root / _LOCK))
            except Taken as holder:
                raise RunError(
                    f"another process is packing into {self.root} ({holder}); wait for it, or choose another folder"
                ) from None
            yield


def _encoded(
    source: ImageSource, packing: Packing, positions: range, _: Failures
) -> list[EncodingResult]:
    images: list[EncodingResult] = []
    for position in positions:
        try:
            image = stored(source, position, packing.short_side, packing.quality)
        except (DataError, SettingsError) as error:  # of this image; others concern all of them
            image = error
        images.append((position, image))
    return images


def _add(
    writer: ShardWriter,
    source: ImageSource,
    position: int,
    label: np.int64 | NDArray[np.int64],
    image: Stored,
) -> dict[str, Any]:
    """Write the tar members of a sample; returns its row in the index.

    The label is the number of a class, or 0 or 1 for each class; -1 if it is not known.
    """
    key, name = f"{position:09}", source.name(position)
    metadata: dict[str, Any] = {ORIGINAL_NAME: name}
    names, word = source.annotations.names, ""
    offset = writer.add(key + image.ending, image.data)
    if np.all(label == UNKNOWN):
        pass
    elif isinstance(label, np.ndarray):
        numbers = np.flatnonzero(label).tolist()
        metadata |= {"label": numbers, "class_name": [names[number] for number in numbers]}
        word = as_word(numbers)
    else:
        word = str(label)
        writer.add(f"{key}.cls", word.encode())
        metadata |= {"label": int(label), "class_name": names[label]}
    writer.add(f"{key}.json", json.dumps(metadata).encode())
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


def _complete_shard(shard: Path, first: int) -> PackedShard | None:
    """A complete shard that begins at this position, or None. If its modification time differs, its checksum decides."""
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
    """Raises RunError with the first difference between two packings."""
    remedy = "pack into a new folder, or remove this one first"
    old_settings = to_json(before.packing)
    for name, value in to_json(now.packing).items():
        if old_settings[name] != value:
            raise RunError(
                f"{root} was packed with --{name.replace('_', '-')} {_typed(old_settings[name])}, not {_typed(value)}; "
                f"{remedy}, or continue with the old settings: {flags_of(before.packing)}"
            )
    if before.splits.keys() != now.splits.keys():
        raise RunError(
            f"{root} was packed from images with the splits {', '.join(before.splits)}, but these have "
            f"{', '.join(now.splits)}; {remedy}"
        )
    for name, split in now.splits.items():
        if before.splits[name] != split:
            raise RunError(
                f"{root} was packed from other images ({name}: {before.splits[name].images:,} then, {split.images:,} now, "
                f"or other names, sizes or classes); {remedy}"
            )


def _typed(value: Any) -> str:
    if value in (None, []):
        return "not set"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
