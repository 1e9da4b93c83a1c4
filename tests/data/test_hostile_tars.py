"""Tars that claim what they do not hold: every answer is a sentence, or a shard without what cannot be read."""

import io
import json
import os
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.test_shards import levels, names, opened, png, write_tar

from unmask.data import cache, tar_index
from unmask.errors import DataError

Header = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **facts: Any) -> Header:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, data


def write(path: Path, members: list[Header]) -> Path:
    """A tar whose headers are written as they are, even if they claim other sizes."""
    with path.open("wb") as file:
        for info, data in members:
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    return path


def pax(**records: str) -> Header:
    """An extended header for the next member."""
    lines = b""
    for key, value in records.items():
        line = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(line) + 2
        lines += str(length if len(str(length)) == 2 else length + 1).encode() + line
    return member("pax", lines, tarfile.XHDTYPE)


A, B, C = (member(f"{name}.png", png(10 * number)) for number, name in enumerate("abc"))
# newer releases of Python refuse what older ones pass over
PAX_WORDS = "invalid header" if hasattr(tarfile, "_header_length_prefix_re") else None
NOT_FOLLOWED = ["x.tar/l.png", "x.tar/h.png", "x.tar/p.png", "x.tar/d.png", "x.tar/s.png"]


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    """Links may point to /dev/zero or out of the archive; they, devices and sparse files are named."""
    members = [
        A,
        member("l.png", kind=tarfile.SYMTYPE, linkname="/dev/zero"),
        member("h.png", kind=tarfile.LNKTYPE, linkname="a.png"),
        member("p.png", kind=tarfile.FIFOTYPE),
        member("d.png", kind=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("s.png", kind=tarfile.GNUTYPE_SPARSE),
        member("b.txt", kind=tarfile.SYMTYPE, linkname="a.png"),
        member("folder", kind=tarfile.DIRTYPE),
        B,
    ]
    source = opened(write(tmp_path / "x.tar", members))
    assert levels(source) == [0, 10]
    assert [name for name, _ in source.refused] == NOT_FOLLOWED
    assert source.refused[0][1] == "is a link, which is not read"
    assert source.refused[3][1] == "is a device or pipe, which is not read"
    assert source.refused[4][1] == "is a sparse file, which is not read"
    assert dict(source.others) == {"(a link)": 1}


@pytest.mark.parametrize(
    ("odd", "alone"),
    [
        pytest.param([pax(GNU_sparse_size="many"), B], "invalid literal", id="a sparse size in words"),
        pytest.param([pax(GNU_sparse_map="1,x"), B], "invalid literal", id="a sparse map in words"),
        pytest.param([pax(size="-1024"), B], "headers that lead back", id="a negative size in pax"),
        pytest.param([pax(size="9" * 4), B], "truncated", id="another size in pax"),
        pytest.param([member("b.png", size=-512)], "headers that lead back", id="a negative size"),
        pytest.param([member("b", size=2**40, kind=tarfile.GNUTYPE_LONGNAME)], "a header of 1,099", id="a long name"),
        pytest.param([member("pax", size=2**40, kind=tarfile.XHDTYPE)], "a header of 1,099", id="a long pax header"),
        pytest.param([member("pax", b"99 x", tarfile.XHDTYPE), B], PAX_WORDS, id="a pax header of words"),
        pytest.param([member("b", b"b", tarfile.GNUTYPE_LONGNAME)] * 3000, "recursion", id="names of names"),
        pytest.param([member("b.png", size=2**60, kind=tarfile.GNUTYPE_SPARSE)], "a sparse file", id="2^60 bytes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_odd_headers(tmp_path: Path, odd: list[Header], alone: str | None, first: bool) -> None:
    """After an image, that is used and what follows is named; as the first, a shard is refused with a reason, or read."""
    shard = write(tmp_path / "x.tar", odd if first else [A, *odd])
    if first and alone is not None:
        with pytest.raises(DataError, match=rf"x\.tar.*{alone}"):
            opened(shard)
        return
    source = opened(shard)
    assert levels(source) == ([10] if first else [0] if alone else [0, 10])
    assert [name for name, _ in source.refused] == (
        [] if alone is None else ["x.tar/b.png", "x.tar/"] if "sparse file" in alone else ["x.tar/"]
    )


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ([member("b.png", size=2**40)], "truncated after 1 images; copy it again"),
        ([member("pax", size=2**40, kind=tarfile.XHDTYPE)], "damaged (a header of"),
        ([member("b.png", size=-512)], "damaged (headers that lead back) after 1 images"),
    ],
)
def test_damage_is_said(tmp_path: Path, odd: list[Header], said: str) -> None:
    source = opened(write(tmp_path / "x.tar", [A, *odd]))
    assert source.refused[-1][0] == "x.tar/"
    assert source.refused[-1][1].startswith(said)


def test_a_sample_that_is_cut_off_is_not_used_without_its_label(tmp_path: Path) -> None:
    members = [A, member("a.cls", b"1"), B, member("b.cls", size=2**20)]
    source = opened(write(tmp_path / "x.tar", members))
    assert names(source) == ["a.png"]


def test_a_damaged_header_in_the_middle(tmp_path: Path) -> None:
    """tarfile takes it for the end; the images behind it would be left out in silence."""
    shard = write(tmp_path / "x.tar", [A, B, C])
    content = bytearray(shard.read_bytes())
    content[1024 + 148] ^= 255  # the checksum of the second
    shard.write_bytes(content)
    source = opened(shard)
    assert levels(source) == [0]
    assert source.refused == [("x.tar/", "damaged after 1 images; copy it again")]


def test_archives_that_were_joined(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, members) for name, members in (("1", [A]), ("2", [B])))
    (tmp_path / "x.tar").write_bytes(one.read_bytes() + two.read_bytes())
    source = opened(tmp_path / "x.tar")
    assert levels(source) == [0]
    assert source.refused == [
        (
            "x.tar/",
            "followed by another archive after 1 images; join archives with tar --concatenate",
        )
    ]


def test_labels_of_gibibytes_are_not_read(tmp_path: Path) -> None:
    """A label is bounded before it is read, also in a file with holes."""
    shard = tmp_path / "x.tar"
    with shard.open("wb") as file:
        for info, data in (A, member("a.cls", size=6 * 2**30)):
            file.write(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512))
        file.truncate(file.tell() + 6 * 2**30 + 1024)
    source = opened(shard)
    assert source.labels().tolist() == [-1]
    assert "a.cls: 6,442,450,944 bytes are too many for a label" in source.notes[0]


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("photos/a.jpg", "photos/a.jpg"),
        ("\ud800", "a.png"),
        ("\udcff", "\udcff"),
        ("", "a.png"),
        (3, "a.png"),
        ({"a": 1}, "a.png"),
        ("x" * 5000, "a.png"),
    ],
)
def test_original_names(tmp_path: Path, original: object, name: str) -> None:

    note = json.dumps({"original_name": original}).encode()
    assert names(opened(write(tmp_path / "x.tar", [A, member("a.json", note)]))) == [name]


def test_titles_of_another_kind(tmp_path: Path) -> None:
    notes = [b'{"label": 0, "name": 5}', b'{"label": 1, "name": "\\ud800"}', b'{"label": [2]}']
    members = [("a.png", png(1)), ("a.json", notes[0]), ("b.png", png(2)), ("b.json", notes[1])]
    source = opened(write_tar(tmp_path / "x.tar", members))
    assert source.annotations.names == ("0", "\\ud800")


def test_any_damage_ends_well(tmp_path: Path) -> None:
    """Bytes of headers changed at random: images, refused samples, or a DataError; and it ends."""
    members = [A, member("a.cls", b"1"), pax(path="b.png"), B, member("c" * 120 + ".png", png(30))]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    content, random = buffer.getvalue(), np.random.default_rng(0)
    used = len(content.rstrip(b"\0"))
    for _ in range(200):
        data = bytearray(content)
        for _ in range(int(random.integers(1, 4))):
            data[int(random.integers(used))] = int(random.integers(256))
        (tmp_path / "x.tar").write_bytes(data)
        with suppress(DataError):
            source = opened(tmp_path / "x.tar")
            assert len(source) <= 3


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(DataError, match=r"x\.tar is not a regular file"):
        opened(tmp_path / "x.tar")


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 10**6},
        {"offset": -1},
        {"size": 2**62},
        {"size": -5},
        {"offset": 2**62, "size": 2**62},
    ],
)
def test_a_stored_index_that_points_outside_is_made_again(
    tmp_path: Path, change: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    shard = write(tmp_path / "x.tar", [A, B])
    opened(shard)
    (stored,) = (tmp_path / "cache").glob("shard-*")
    table, note = cache.read_table(stored) or pytest.fail("no index")
    for name, value in change.items():
        place = table.schema.get_field_index(name)
        column = table.column(name).to_pylist()
        column[1] = value
        field = tar_index.COLUMNS.field(name)
        table = table.set_column(place, field, [column])
    cache.write_table(stored, table, note)
    assert levels(opened(shard)) == [0, 10]
