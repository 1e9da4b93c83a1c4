"""The index of a tar shard: which images it holds, and where. Made once, and again when the shard changes."""

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
from unmask.data.changes import size_and_time
from unmask.data.decode import IMAGE_ENDINGS
from unmask.data.labels import as_word, words_of
from unmask.data.names import fingerprint
from unmask.errors import DataError

_VERSION = 3
COLUMNS = pa.schema(
    [
        ("name", pa.large_binary()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("label", pa.string()),
        ("array", pa.bool_()),
    ]
)
"""What is known of each image; the last says that it is a `.npy`."""

ARRAY_ENDING = ".npy"
"""The ending of members that hold an array instead of an encoded image."""

ORIGINAL_NAME = "original_name"
"""Where `.json` tells what an image was called before it was packed."""

_TITLES = ("class_name", "name")
"""Where `.json` tells what a label, or each of several, is called."""

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}


class Index(NamedTuple):
    """What a shard holds."""

    table: pa.Table
    """Of each image, `COLUMNS`; the label is "" without one, and several are one word (`data.labels.as_word`)."""
    refused: list[tuple[str, str]]
    """(name, reason) of samples that cannot be used."""
    others: dict[str, int]
    """How many members of other endings were passed over."""
    titles: dict[str, str]
    """Names of labels, where `.json` members give them."""


class _Member(NamedTuple):
    name: str
    key: str
    ending: str
    offset: int
    size: int


def index_of(shard: Path) -> Index:
    """The index of a shard: from the cache while size and time of change agree, else made anew."""
    key = f"shard-{fingerprint([str(shard.absolute())])}"
    state = json.dumps([_VERSION, *size_and_time(shard)]).encode()
    table = cache.read_table(key)
    if table is not None and (kept := table.schema.metadata or {}).get(b"state") == state:
        rest = json.loads(kept[b"rest"])
        rest["refused"] = [(name, reason) for name, reason in rest["refused"]]
        return Index(table=table, **rest)
    index = make_index(shard)
    rest = {name: value for name, value in index._asdict().items() if name != "table"}
    metadata = {"state": state, "rest": json.dumps(rest)}
    cache.write_table(key, index.table.replace_schema_metadata(metadata))
    return index


def make_index(shard: Path) -> Index:
    """Read all headers of a tar file, and the labels; what is whole of a cut-off one is kept.

    Raises:
        DataError: if it is compressed, no tar file, or cannot be read.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS.names}
    index = Index(pa.table({}), [], Counter(), {})
    try:
        with tarfile.open(shard, "r:") as tar:
            _add_samples(tar, columns, index)
    except tarfile.ReadError as error:
        if not columns["name"] and not index.refused:
            raise DataError(_no_tar(shard, error)) from None
        index.refused.append(("", f"cut off after {len(columns['name'])} images; copy it anew"))
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
        rest = [member for member in sample if member not in images]
        label, original = _about(rest, tar, index.titles)
        for member in rest:
            if member.ending not in (".cls", ".json"):
                kind = member.ending or "(no ending)"
                index.others[kind] = index.others.get(kind, 0) + 1
        if not images:
            if any(member.ending == ".cls" for member in rest):
                index.refused.append((key, "a sample without an image"))
            continue
        index.refused.extend((m.name, "a second image of the same key") for m in images[1:])
        if key in keys:
            index.refused.append((images[0].name, "the key of an earlier sample of this shard"))
            continue
        keys.add(key)
        row = (
            os.fsencode(original or images[0].name),
            images[0].offset,
            images[0].size,
            label,
            images[0].ending == ARRAY_ENDING,
        )
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)


def _members(tar: tarfile.TarFile, index: Index) -> Iterator[_Member]:
    """Every visible file of a tar, its name taken apart. Nothing is ever unpacked."""
    for member in tar:
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue] - it would keep them all
        path = PurePosixPath(member.name)
        if not member.isfile() or path.name.startswith("."):
            continue
        if path.is_absolute() or ".." in path.parts:
            index.refused.append((member.name, "its name leads out of the archive"))
            continue
        stem, dot, ending = path.name.partition(".")
        key = str(path.with_name(stem))
        yield _Member(member.name, key, (dot + ending).lower(), member.offset_data, member.size)


def _about(members: list[_Member], tar: tarfile.TarFile, titles: dict[str, str]) -> tuple[str, str]:
    """A sample's label and the name it had before it was packed, "" without."""
    found = {member.ending: member for member in members}
    label = ""
    if ".cls" in found:
        label = _content(tar, found[".cls"]).decode("utf-8", "replace").strip()
    if ".json" not in found:
        return label, ""
    try:
        about = json.loads(_content(tar, found[".json"]))
    except ValueError:
        return label, ""
    if not isinstance(about, dict):
        return label, ""
    noted, title = about.get("label"), next((about[k] for k in _TITLES if k in about), None)
    if not label and isinstance(noted, list):
        label = as_word(noted)
        for word, name in zip(
            words_of(label), title if isinstance(title, list) else (), strict=False
        ):
            titles.setdefault(word, str(name))
    if not label and noted is not None:
        label = str(noted)
    if label and isinstance(title, str):
        titles.setdefault(label, title)
    return label, str(about.get(ORIGINAL_NAME, ""))


def _content(tar: tarfile.TarFile, member: _Member) -> bytes:
    assert tar.fileobj is not None
    tar.fileobj.seek(member.offset)  # tarfile finds its own place again
    return tar.fileobj.read(member.size)


def _no_tar(shard: Path, error: Exception) -> str:
    with shard.open("rb") as file:
        start = file.read(2)
    if start in _COMPRESSED:
        return (
            f"{shard} is compressed, so nothing in it can be read at random; unpack it once with "
            f"{_COMPRESSED[start]} (images hardly grow by it)"
        )
    return f"{shard} is no tar file ({error})"
