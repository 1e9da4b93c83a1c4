"""The index of a tar shard: its images and their offsets. It is cached until the shard changes."""

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from unmask.data import cache
from unmask.data.cache import size_and_time
from unmask.data.label_values import class_word, label_word
from unmask.data.labels import fingerprint, words_of
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.errors import DataError, first_line
from unmask.files import parse_json

_VERSION = 5
COLUMNS = pa.schema(
    [
        ("name", pa.large_binary()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("label", pa.string()),
        ("array", pa.bool_()),
    ]
)
"""The columns of the index; `array` is true for a `.npy`."""

ARRAY_ENDING = ".npy"
"""The ending of members that are arrays instead of encoded images."""

ORIGINAL_NAME = "original_name"
"""Key in `.json` for the image's name before it was packed."""

_TITLES = ("class_name", "name")
"""Keys in `.json` for the name of the class, or the names of several classes."""

_LARGEST_HEADER = 2**20  # bytes, with the long names of pax and GNU
_LARGEST_LABEL = 2**16  # bytes of a .cls or .json
_LONGEST_NAME = 4096
MOST_ODD = 1000
"""Odd labels of a shard that are counted."""

_DAMAGED = (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError, EOFError)
"""What tarfile raises for headers that were damaged, or made to mislead."""

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}


class Index(NamedTuple):
    """The contents of a shard."""

    table: pa.Table
    """One row of `COLUMNS` per image; the label is a word as `data.label_values` makes it."""
    refused: list[tuple[str, str]]
    """(name, reason) of samples that cannot be used."""
    others: dict[str, int]
    """Number of skipped members by ending."""
    titles: dict[str, str]
    """Class names by label, from `.json` members."""
    odd: list[str]
    """Labels that are not read, with the reasons; at most 1,000."""


class _Member(NamedTuple):
    name: str
    key: str
    ending: str
    offset: int
    size: int


def index_of(shard: Path) -> Index:
    """The index of a shard: from the cache if size and time of change match, else computed.

    Raises:
        DataError: see `make_index`.
    """
    path = cache.cache_folder() / f"shard-{fingerprint([str(shard.absolute())])}.arrow"
    state = [_VERSION, *size_and_time(shard)]
    if (cached := cache.read_table(path)) is not None and cached[1].pop("state", None) == state:
        table, facts = cached
        if facts.keys() == set(Index._fields[1:]) and fits(table, COLUMNS, state[1]):
            facts["refused"] = [(name, reason) for name, reason in facts["refused"]]
            return Index(table, **facts)
    index = make_index(shard)
    note = {"state": state, **index._asdict()}
    del note["table"]
    cache.store(path, lambda file: cache.write_table(file, index.table, note))
    return index


def fits(table: pa.Table, columns: pa.Schema, size: int) -> bool:
    """Whether an index has these columns, without nulls, and all its images are inside a shard of `size` bytes."""
    if not table.schema.equals(columns) or any(column.null_count for column in table.columns):
        return False
    offsets, sizes = (table.column(name).to_numpy() for name in ("offset", "size"))
    inside = (offsets >= 0) & (sizes >= 0) & (sizes <= size) & (offsets <= size - sizes)
    return bool(np.all(inside))


def make_index(shard: Path) -> Index:
    """Read all headers and labels of a tar file; of a damaged one, the complete members up to the damage.

    Raises:
        DataError: if it is compressed, not a tar file, or cannot be read.
    """
    if not shard.is_file():
        raise DataError(f"{shard} is not a regular file")
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS.names}
    index = Index(pa.table({}), [], Counter(), {}, [])
    damage: list[_Damage] = []
    try:
        with shard.open("rb") as file, tarfile.open(shard, "r:", _Headers(file)) as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
            _add_samples(_members(tar, file, index, damage), file, columns, index, damage)
    except _DAMAGED as error:
        raise DataError(_not_a_tar(shard, first_line(error))) from None
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror})") from None
    if damage:
        if not columns["name"] and not index.refused:
            raise DataError(_not_a_tar(shard, damage[0].what))
        what, remedy, _ = damage[0]
        index.refused.append(("", f"{what} after {len(columns['name'])} images; {remedy}"))
    named = [(f"{shard.name}/{name}", reason) for name, reason in index.refused]
    return index._replace(table=pa.table(columns, COLUMNS), refused=named)


class _Damage(NamedTuple):
    """Why a shard is not read to its end."""

    what: str
    remedy: str = "copy it again"
    key: str | None = None
    """The sample that the damage is in, if that is known."""


class _Headers:
    """A tar file as tarfile reads it, which is headers alone; one that claims to be very long is refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.tell = file.tell

    def seek(self, offset: int) -> int:
        """Go to a place; raises tarfile.ReadError if it is outside of the file."""
        if not 0 <= offset <= self._size:
            raise tarfile.ReadError("unexpected end of data")
        return self._file.seek(offset)

    def read(self, size: int) -> bytes:
        """The next bytes; raises tarfile.ReadError if they are more than a header has."""
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _add_samples(
    members: Iterator[_Member],
    file: BinaryIO,
    columns: dict[str, list[Any]],
    index: Index,
    damage: list[_Damage],
) -> None:
    """Add the samples of a shard to the columns and the index, up to the first damage."""
    keys: set[str] = set()
    for key, group in groupby(members, attrgetter("key")):
        sample = list(group)
        if damage and damage[0].key == key:
            return
        images = [member for member in sample if member.ending in IMAGE_ENDINGS]
        if not images:
            images = [member for member in sample if member.ending == ARRAY_ENDING]
        others = [member for member in sample if member not in images]
        label, original = _label_and_name(others, file, index)
        for member in others:
            if member.ending not in (".cls", ".json"):
                _count(index, member.ending or "(no ending)")
        if not images:
            if any(member.ending == ".cls" for member in others):
                index.refused.append((key, "a sample without an image"))
            continue
        index.refused.extend((m.name, "a second image with the same key") for m in images[1:])
        if key in keys:
            index.refused.append((images[0].name, "the key of an earlier sample in this shard"))
            continue
        keys.add(key)
        name, _, ending, offset, size = images[0]
        row = (original or os.fsencode(name), offset, size, label, ending == ARRAY_ENDING)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)


def _members(
    tar: tarfile.TarFile, file: BinaryIO, index: Index, damage: list[_Damage]
) -> Iterator[_Member]:
    """Every visible file of a tar, with its name split into key and ending. Nothing is unpacked, no link is followed."""
    total, last = os.fstat(file.fileno()).st_size, -1
    try:
        for member in tar:
            # tarfile keeps every header in memory, which is too much for shards with millions of members.
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
            if member.offset <= last or member.size < 0:  # which would lead round in a circle
                raise tarfile.ReadError("headers that lead back")
            last = member.offset
            path = PurePosixPath(member.name)
            if member.isdir() or path.name.startswith("."):
                continue
            stem, dot, ending = path.name.partition(".")
            ending = (dot + ending).lower()
            if (kind := _odd_kind(member)) is not None:
                if ending in IMAGE_ENDINGS or ending == ARRAY_ENDING:
                    index.refused.append((member.name, f"is {kind}, which is not read"))
                else:
                    _count(index, f"({kind})")
                continue
            if path.is_absolute() or ".." in path.parts:
                index.refused.append((member.name, "its path leads out of the archive"))
                continue
            key = str(path.with_name(stem))
            if member.offset_data + member.size > total:
                damage.append(_Damage("truncated", key=key))
                return
            yield _Member(member.name, key, ending, member.offset_data, member.size)
        damage += _after(file, tar.offset)  # pyright: ignore[reportAttributeAccessIssue]
    except _DAMAGED as error:
        cut = str(error).startswith("unexpected end")
        damage.append(_Damage("truncated" if cut else f"damaged ({first_line(error)})"))


def _odd_kind(member: tarfile.TarInfo) -> str | None:
    """What a member is that is not a plain file; None for one."""
    if member.issym() or member.islnk():
        return "a link"
    if member.issparse():
        return "a sparse file"
    return None if member.isfile() else "a device or pipe"


def _after(file: BinaryIO, end: int) -> list[_Damage]:
    """What is wrong with what follows the last member, which should be zeros."""
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        return [_Damage("damaged")]
    if file.read(2 * tarfile.RECORDSIZE).strip(b"\0"):
        return [_Damage("followed by another archive", "join archives with tar --concatenate")]
    return []


def _count(index: Index, kind: str) -> None:
    index.others[kind] = index.others.get(kind, 0) + 1


def _label_and_name(members: list[_Member], file: BinaryIO, index: Index) -> tuple[str, bytes]:
    """A sample's label and its name before it was packed, each empty if there is none; adds to titles and odd labels."""
    by_ending = {member.ending: member for member in members}
    label, original = "", b""
    for ending, read in ((".cls", _from_cls), (".json", _from_json)):
        if (member := by_ending.get(ending)) is not None:
            try:
                label, original = read(_content(file, member), label, index.titles)
            except DataError as error:
                if not label and len(index.odd) < MOST_ODD:
                    index.odd.append(f"{member.name}: {error}")
    return label, original


def _from_cls(content: bytes, _: str, __: dict[str, str]) -> tuple[str, bytes]:
    return label_word(content), b""


def _from_json(content: bytes, label: str, titles: dict[str, str]) -> tuple[str, bytes]:
    """The label, unless there is one, and the original name; adds class names to `titles`."""
    metadata = parse_json(content, "it", _LARGEST_LABEL)
    if not isinstance(metadata, dict):
        return label, b""
    label = label or label_word(metadata.get("label"))
    title = next((metadata[key] for key in _TITLES if key in metadata), None)
    words, names = words_of(label), title if isinstance(title, list) else [title]
    if len(words) == len(names) and all(isinstance(name, str) for name in names):
        for word, name in zip(words, names, strict=True):
            titles.setdefault(word, class_word(name) or word)
    original = metadata.get(ORIGINAL_NAME)
    if not isinstance(original, str) or not 0 < len(original) <= _LONGEST_NAME:
        return label, b""
    try:
        return label, os.fsencode(original)
    except UnicodeEncodeError:  # half of a surrogate pair is no name
        return label, b""


def _content(file: BinaryIO, member: _Member) -> bytes:
    """The bytes of a label; tarfile seeks before it reads the next header."""
    if member.size > _LARGEST_LABEL:
        raise DataError(f"{member.size:,} bytes are too many for a label")
    file.seek(member.offset)
    return file.read(member.size)


def _not_a_tar(shard: Path, reason: object) -> str:
    with shard.open("rb") as file:
        start = file.read(2)
    if tool := _COMPRESSED.get(start):
        return f"{shard} is compressed, which prevents random access; decompress it with {tool} (images hardly grow)"
    return f"{shard} is not a tar file ({reason})"
