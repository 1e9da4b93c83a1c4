"""The index of a tar shard: its images and their offsets. It is cached until the shard changes."""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from unmask.data import cache
from unmask.data.cache import size_and_time
from unmask.data.labels import as_word, fingerprint, words_of
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.errors import DataError

_VERSION = 4
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

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}


class Index(NamedTuple):
    """The contents of a shard."""

    table: pa.Table
    """One row of `COLUMNS` per image; the label is "" if there is none, and `data.labels.as_word` encodes several."""
    refused: list[tuple[str, str]]
    """(name, reason) of samples that cannot be used."""
    others: dict[str, int]
    """Number of skipped members by ending."""
    titles: dict[str, str]
    """Class names by label, from `.json` members."""


class _Member(NamedTuple):
    name: str
    key: str
    ending: str
    offset: int
    size: int


def index_of(shard: Path) -> Index:
    """The index of a shard: from the cache if size and time of change match, else computed."""
    path = cache.cache_folder() / f"shard-{fingerprint([str(shard.absolute())])}.arrow"
    state = [_VERSION, *size_and_time(shard)]
    if (cached := cache.read_table(path)) is not None and cached[1].pop("state", None) == state:
        table, facts = cached
        facts["refused"] = [(name, reason) for name, reason in facts["refused"]]
        return Index(table, **facts)
    index = make_index(shard)
    note = {"state": state, **index._asdict()}
    del note["table"]
    cache.store(path, lambda file: cache.write_table(file, index.table, note))
    return index


def make_index(shard: Path) -> Index:
    """Read all headers and labels of a tar file; of a truncated one, the complete members.

    Raises:
        DataError: if it is compressed, not a tar file, or cannot be read.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS.names}
    index = Index(pa.table({}), [], Counter(), {})
    try:
        with tarfile.open(shard, "r:") as tar:
            _add_samples(tar, columns, index)
    except tarfile.ReadError as error:
        if not columns["name"] and not index.refused:
            raise DataError(_not_a_tar(shard, error)) from None
        index.refused.append(("", f"truncated after {len(columns['name'])} images; copy it again"))
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror})") from None
    named = [(f"{shard.name}/{name}", reason) for name, reason in index.refused]
    return index._replace(table=pa.table(columns, COLUMNS), refused=named)


def _add_samples(tar: tarfile.TarFile, columns: dict[str, list[Any]], index: Index) -> None:
    keys: set[str] = set()
    for key, members in groupby(_members(tar, index), attrgetter("key")):
        sample = list(members)
        images = [member for member in sample if member.ending in IMAGE_ENDINGS]
        if not images:
            images = [member for member in sample if member.ending == ARRAY_ENDING]
        others = [member for member in sample if member not in images]
        label, original = _label_and_name(others, tar, index.titles)
        for member in others:
            if member.ending not in (".cls", ".json"):
                kind = member.ending or "(no ending)"
                index.others[kind] = index.others.get(kind, 0) + 1
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
        row = (os.fsencode(original or name), offset, size, label, ending == ARRAY_ENDING)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)


def _members(tar: tarfile.TarFile, index: Index) -> Iterator[_Member]:
    """Every visible file of a tar, with its name split into key and ending. Nothing is unpacked."""
    for member in tar:
        # tarfile keeps every header in memory, which is too much for shards with millions of members.
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
        path = PurePosixPath(member.name)
        if not member.isfile() or path.name.startswith("."):
            continue
        if path.is_absolute() or ".." in path.parts:
            index.refused.append((member.name, "its path leads out of the archive"))
            continue
        stem, dot, ending = path.name.partition(".")
        key = str(path.with_name(stem))
        yield _Member(member.name, key, (dot + ending).lower(), member.offset_data, member.size)


def _label_and_name(
    members: list[_Member], tar: tarfile.TarFile, titles: dict[str, str]
) -> tuple[str, str]:
    """A sample's label and its name before it was packed, each "" if there is none; adds class names to `titles`."""
    by_ending = {member.ending: member for member in members}
    label = ""
    if ".cls" in by_ending:
        label = _content(tar, by_ending[".cls"]).decode("utf-8", "replace").strip()
    if ".json" not in by_ending:
        return label, ""
    try:
        metadata = json.loads(_content(tar, by_ending[".json"]))
    except ValueError:
        return label, ""
    if not isinstance(metadata, dict):
        return label, ""
    json_label = metadata.get("label")
    title = next((metadata[key] for key in _TITLES if key in metadata), None)
    if not label and isinstance(json_label, list):
        label = as_word(json_label)
        names = title if isinstance(title, list) else ()
        for word, name in zip(words_of(label), names, strict=False):
            titles.setdefault(word, str(name))
    if not label and json_label is not None:
        label = str(json_label)
    if label and isinstance(title, str):
        titles.setdefault(label, title)
    return label, str(metadata.get(ORIGINAL_NAME, ""))


def _content(tar: tarfile.TarFile, member: _Member) -> bytes:
    assert tar.fileobj is not None
    tar.fileobj.seek(member.offset)  # tarfile seeks before it reads the next header
    return tar.fileobj.read(member.size)


def _not_a_tar(shard: Path, error: Exception) -> str:
    with shard.open("rb") as file:
        start = file.read(2)
    if tool := _COMPRESSED.get(start):
        return f"{shard} is compressed, which prevents random access; decompress it with {tool} (images hardly grow)"
    return f"{shard} is not a tar file ({error})"
