"""Parquet files that stand for much more than they hold, or claim what they do not hold."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.test_shards import png

from unmask.data import Parquet, cache, parquet_images, parquet_rows
from unmask.data.image_files import EncodedImages
from unmask.data.parquet_pages import pages_of
from unmask.errors import DataError, ResourceError

PICTURES = [png(10 * number) + bytes(10_000) for number in range(5)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(cache, "cache_folder", lambda: folder)
    return folder


def write(path: Path, images: Any, **settings: Any) -> Path:
    pq.write_table(pa.table({"image": images}), path, **settings)
    return path


def opened(path: Path) -> EncodedImages:
    return Parquet(path=str(path)).open()


def levels(source: EncodedImages) -> list[int]:
    return [int(source[position].image[0, 0, 0]) for position in range(len(source))]


def repeated(rows: int, kind: Any = None) -> Any:
    """Rows of five pictures as a dictionary, as a table of repeated images is written."""
    codes = pa.array([row % 5 for row in range(rows)], pa.int32())
    return pa.DictionaryArray.from_arrays(codes, pa.array(PICTURES, kind))


@pytest.mark.parametrize("whole", [2**28, 0])
@pytest.mark.parametrize("nested", [True, False])
def test_a_repeated_picture_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int, nested: bool
) -> None:
    """Of 200 rows, 5 pictures take memory, whether a row group is read at once or by rows."""
    monkeypatch.setattr(parquet_images, "_WHOLE", whole)
    images = [PICTURES[row % 5] for row in range(200)]
    column = [{"bytes": image, "path": ""} for image in images] if nested else images
    file = write(tmp_path / "x.parquet", pa.array(column))
    path = "image.bytes" if nested else "image"
    stored = parquet_images.read_images([file], path, "state")
    assert stored.bytes.nbytes < 6 * len(PICTURES[0])
    source = opened(file)
    assert levels(source) == [10 * (row % 5) for row in range(200)]
    assert source.encoded(7) == PICTURES[2]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("schema", [True, False])
def test_a_column_that_is_a_dictionary(tmp_path: Path, kind: Any, schema: bool) -> None:
    file = write(tmp_path / "x.parquet", repeated(40, kind), store_schema=schema)
    assert levels(opened(file)) == [10 * (row % 5) for row in range(40)]


def test_what_is_read_is_counted_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """Pages of a prefix and its ends claim little and hold much: the copy begins when the limit is passed."""
    monkeypatch.setattr(parquet_images, "_IN_MEMORY", 100_000)
    monkeypatch.setattr(parquet_images, "BATCH", 20_000)
    monkeypatch.setattr(parquet_images, "_SLACK", 2**20)
    images = [png(30) + bytes(10_000) + bytes([number]) for number in range(100)]
    file = write(
        tmp_path / "x.parquet",
        pa.array(images),
        use_dictionary=False,
        column_encoding={"image": "DELTA_BYTE_ARRAY"},
    )
    assert file.stat().st_size < 50_000
    source = opened(file)
    assert [source.encoded(row) for row in range(100)] == images
    (copy,) = own_cache.glob("parquet-*.arrow")
    assert copy.stat().st_size > 10**6
    monkeypatch.setattr(parquet_images, "_write", lambda *_: pytest.fail("copied again"))
    assert [opened(file).encoded(row) for row in range(100)] == images


def test_a_copy_of_another_kind_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setattr(parquet_images, "_IN_MEMORY", 0)
    file = write(tmp_path / "x.parquet", pa.array(PICTURES))
    opened(file)
    (copy,) = own_cache.glob("parquet-*.arrow")
    for content in (b"", b"words", copy.read_bytes()[:5000]):
        copy.write_bytes(content)
        assert levels(opened(file)) == [0, 10, 20, 30, 40]


def test_a_disk_that_fills_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """The free space is asked again for each part, since a file may hold more than it claims."""
    monkeypatch.setattr(parquet_images, "_IN_MEMORY", 0)
    free = iter([2**40, 3])
    usage: Callable[[Any], Any] = lambda _: type("Usage", (), {"free": next(free)})  # noqa: E731
    monkeypatch.setattr(parquet_images.shutil, "disk_usage", usage)
    file = write(tmp_path / "x.parquet", pa.array(PICTURES))
    with pytest.raises(ResourceError, match="free disk space there, or store the images in tar"):
        opened(file)
    assert list(own_cache.iterdir()) == []


def test_what_a_killed_copy_leaves_is_cleared_by_the_next_start(
    tmp_path: Path, own_cache: Path
) -> None:
    """Also by one that copies nothing; a whole copy stays."""
    own_cache.mkdir()
    for name in (".123-parquet-0.arrow", f".{os.getpid()}-parquet-1.arrow", "parquet-2.arrow"):
        (own_cache / name).write_bytes(bytes(1000))
    opened(write(tmp_path / "x.parquet", pa.array(PICTURES)))
    assert [path.name for path in own_cache.iterdir()] == ["parquet-2.arrow"]


def test_a_killed_copy_that_fills_the_disk_does_not_stop_the_next_one(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.mkdir()
    left = own_cache / ".123-parquet-0.arrow"
    left.write_bytes(bytes(1000))
    monkeypatch.setattr(parquet_images, "_IN_MEMORY", 0)

    def usage(_: Path) -> Any:
        return type("Usage", (), {"free": 0 if left.exists() else 2**40})

    monkeypatch.setattr(parquet_images.shutil, "disk_usage", usage)
    assert levels(opened(write(tmp_path / "x.parquet", pa.array(PICTURES)))) == [0, 10, 20, 30, 40]


def test_pages_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "x.parquet", pa.array(PICTURES))
    monkeypatch.setattr(parquet_images, "_LARGEST_PAGE", 40_000)
    with pytest.raises(DataError, match=r"x\.parquet is too large to read.*row_group_size=100"):
        opened(file)
    opened(write(tmp_path / "y.parquet", pa.array(PICTURES), row_group_size=2))


def test_too_much_from_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_images, "_WHOLE", 0)
    monkeypatch.setattr(parquet_images, "_MOST_REPEATS", 3)
    with pytest.raises(DataError, match="in a page, or from few bytes"):
        opened(write(tmp_path / "x.parquet", repeated(200), store_schema=False))


def test_more_rows_than_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "_MOST_ROWS", 1000)
    file = write(tmp_path / "x.parquet", pa.nulls(100_000, pa.binary()))
    with pytest.raises(DataError, match=r"x\.parquet claims 100,000 rows in \d+ bytes"):
        opened(file)


class TestPages:
    @pytest.mark.parametrize("version", ["1.0", "2.0"])
    @pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip"])
    @pytest.mark.parametrize("dictionary", [True, False])
    def test_their_headers_say_what_the_metadata_say(
        self, tmp_path: Path, version: str, codec: str, dictionary: bool
    ) -> None:
        """For an honest file, whose metadata count the headers themselves too."""
        images = pa.array([*PICTURES, None, PICTURES[0]])
        settings: dict[str, Any] = {"use_dictionary": dictionary, "compression": codec}
        file = write(tmp_path / "x.parquet", images, data_page_version=version, **settings)
        chunk = pq.read_metadata(file).row_group(0).column(0)
        pages = pages_of(file, chunk)
        assert pages.values == 7
        assert pages.dictionary == dictionary
        assert 5 * 10_000 < pages.largest <= pages.total <= chunk.total_uncompressed_size
        assert chunk.total_uncompressed_size - pages.total < 200

    def test_a_header_of_any_bytes(self, tmp_path: Path) -> None:
        """Each byte of the headers changed: the answer is a result or a DataError, never anything else."""
        file = write(tmp_path / "x.parquet", pa.array(PICTURES))
        chunk, content = pq.read_metadata(file).row_group(0).column(0), file.read_bytes()
        random = np.random.default_rng(0)
        starts = [chunk.dictionary_page_offset, chunk.data_page_offset]
        for start in starts:
            for offset in range(start, start + 25):
                for byte in random.integers(0, 256, 4).tolist():
                    file.write_bytes(content[:offset] + bytes([byte]) + content[offset + 1 :])
                    with suppress(DataError):
                        pages_of(file, chunk)


def changed(content: bytes, random: np.random.Generator) -> bytes:
    """The file with a few bytes of its pages changed, many of them in the first header."""
    data = bytearray(content)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(int(random.integers(1, 4))):
        end = 40 if random.integers(2) else footer
        data[int(random.integers(4, end))] = int(random.integers(256))
    return bytes(data)


def test_any_damage_is_a_sentence(tmp_path: Path) -> None:
    """A damaged file is refused with its name, or read with the rows that it has."""
    table = pa.table({"image": PICTURES, "label": ["a", "b", "a", None, "b"]})
    pq.write_table(table, tmp_path / "whole.parquet", compression="zstd")
    content = (tmp_path / "whole.parquet").read_bytes()
    random = np.random.default_rng(0)
    file = tmp_path / "x.parquet"
    refused: list[str] = []
    for _ in range(150):
        file.write_bytes(changed(content, random))
        try:
            assert len(opened(file)) <= 5
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all(str(tmp_path) in message for message in refused)


def test_no_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", pa.array([], pa.binary()))
    with pytest.raises(DataError, match=r"x\.parquet has no rows, so it has no images"):
        opened(file)
    write(tmp_path / "y.parquet", pa.array(PICTURES))
    assert levels(opened(tmp_path)) == [0, 10, 20, 30, 40]


def test_row_groups_without_rows(tmp_path: Path) -> None:
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(tmp_path / "x.parquet", schema) as writer:
        for images in ([], PICTURES[:2], [], PICTURES[2:], []):
            writer.write_table(pa.table({"image": images}, schema))
    assert levels(opened(tmp_path / "x.parquet")) == [0, 10, 20, 30, 40]


def test_empty_bytes_and_nulls_are_set_aside_with_their_row(tmp_path: Path) -> None:
    table = pa.table({"image": [PICTURES[0], b"", None, PICTURES[3]], "label": [7, 8, 9, 7]})
    pq.write_table(table, tmp_path / "x.parquet")
    source = opened(tmp_path / "x.parquet")
    assert sorted(source.refused) == [
        ("x.parquet:1", "empty (0 bytes)"),
        ("x.parquet:2", "has no bytes (null)"),
    ]
    assert [source.annotations.names[label] for label in source.labels()] == ["7", "7"]


class TestColumns:
    def test_one_called_image_comes_before_others(self, tmp_path: Path) -> None:
        columns = {"mask": PICTURES[::-1], "thumbnail": PICTURES[::-1], "IMAGE": PICTURES}
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
        source = opened(tmp_path / "x.parquet")
        assert levels(source) == [0, 10, 20, 30, 40]
        assert source.notes == ("images from column IMAGE; mask, thumbnail hold bytes too",)

    @pytest.mark.parametrize("other", ["hash", "image", "picture"])
    def test_one_that_the_schema_marks_comes_before_all_names(
        self, tmp_path: Path, other: str
    ) -> None:
        features = {"scan": {"_type": "Image"}, "sound": {"_type": "Audio"}}
        table = pa.table({other: [b"x"] * 5, "sound": [b"y"] * 5, "scan": PICTURES})
        note = json.dumps({"info": {"features": features}})
        pq.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "x.parquet")
        source = opened(tmp_path / "x.parquet")
        assert levels(source) == [0, 10, 20, 30, 40]
        assert source.notes == (f"images from column scan; {other} holds bytes too",)

    @pytest.mark.parametrize(
        ("first", "second"),
        [("img", "images"), ("bytes", "photo"), ("png", "Image"), ("photo", "scan")],
    )
    def test_names_in_an_order_that_runs_depend_on(
        self, tmp_path: Path, first: str, second: str
    ) -> None:
        pq.write_table(pa.table({second: PICTURES[::-1], first: PICTURES}), tmp_path / "x.parquet")
        assert levels(opened(tmp_path / "x.parquet")) == [0, 10, 20, 30, 40]

    def test_one_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        columns = {"image": ["a.png"] * 5, "scan": PICTURES}
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
        assert opened(tmp_path / "x.parquet").notes == (
            "images from column scan; column image of type string is not read as images",
        )

    @pytest.mark.parametrize(
        ("column", "said"),
        [
            (
                ["a.png"],
                "image seems to hold paths: give the folder of these files as DATA, and this",
            ),
            ([[1, 2]], "image holds numbers: store encoded bytes, such as PNG, instead"),
            ([[b"a"]], "image holds lists: store one image per row"),
            ([1], "an image column must have encoded bytes, or a struct of bytes and path"),
        ],
    )
    def test_none(self, tmp_path: Path, column: Any, said: str) -> None:
        write(tmp_path / "x.parquet", pa.array(column))
        with pytest.raises(DataError, match=rf"has no image column, only image \(.*\); {said}"):
            opened(tmp_path / "x.parquet")

    @pytest.mark.parametrize("name", ["image", "label"])
    def test_two_of_one_name(self, tmp_path: Path, name: str) -> None:
        columns = [pa.array(PICTURES), pa.array(range(5)), pa.array(range(5))]
        if name == "image":
            columns[1] = pa.array(PICTURES)
        names = ["image", name, "label"]
        pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=f"has several columns called {name}; rename all but"):
            opened(tmp_path / "x.parquet")

    @pytest.mark.parametrize(
        ("note", "said"),
        [
            ("{", "the huggingface note of x.parquet is not valid JSON"),
            ("[" * 50_000, "the huggingface note of x.parquet is not valid: it is nested too deep"),
            ('{"info": 3}', "the huggingface note of x.parquet has no features by column"),
            ('{"info": {"features": [1]}}', "has no features by column; it is not used"),
        ],
    )
    def test_a_note_of_another_kind(self, tmp_path: Path, note: str, said: str) -> None:
        table = pa.table({"image": PICTURES}).replace_schema_metadata({"huggingface": note})
        pq.write_table(table, tmp_path / "x.parquet")
        source = opened(tmp_path / "x.parquet")
        assert len(source.notes) == 1
        assert said in source.notes[0]

    @pytest.mark.parametrize(
        "feature", [3, [], [3], {"names": 5}, {"names": [1, 2]}, {"feature": 1}]
    )
    def test_features_of_another_kind(self, tmp_path: Path, feature: Any) -> None:
        note = json.dumps({"info": {"features": {"label": feature, "image": feature}}})
        table = pa.table({"image": PICTURES, "label": ["a", "b", "a", "b", "a"]})
        pq.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "x.parquet")
        assert opened(tmp_path / "x.parquet").annotations.names == ("a", "b")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="is not a regular file"):
        opened(tmp_path / "x.parquet")
