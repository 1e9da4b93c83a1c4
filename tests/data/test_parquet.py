"""Parquet: which columns matter, splits, nulls, and images too large for memory."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unmask.annotations import MultiLabels
from unmask.data import Parquet, cache, parquet_images
from unmask.data.image_files import EncodedImages
from unmask.errors import DataError, ResourceError


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = [{"bytes": png(10 * number), "path": f"{number}.png"} for number in range(6)]
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "owl"]}}


def write(
    path: Path, features: dict[str, Any] | None = None, rows: int = 1000, **columns: Any
) -> Path:
    table = pa.table(columns)
    if features:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def opened(path: Path | str, split: str = "train") -> EncodedImages:
    return Parquet(path=str(path)).open(split)


def levels(source: EncodedImages) -> list[int]:
    return [int(source[position].image[0, 0, 0]) for position in range(len(source))]


class TestLayout:
    def test_hugging_face(self, tmp_path: Path) -> None:
        labels = [1, 0, 1, 1, 0, 1]
        file = write(tmp_path / "x.parquet", FEATURES, rows=4, image=IMAGES, label=labels)
        source = opened(file)
        assert levels(source) == [0, 10, 20, 30, 40, 50]
        assert (source.annotations.names, source.labels().tolist()) == (("cat", "owl"), labels)
        assert source[2].annotation == 1
        assert source.name(3) == "x.parquet:3"

    def test_plain_bytes_and_words(self, tmp_path: Path) -> None:
        images = [image["bytes"] for image in IMAGES[:3]]
        file = write(
            tmp_path / "x.parquet", jpg=images, category=["b", "a", "b"], note=["", "", ""]
        )
        source = opened(file)
        assert levels(source) == [0, 10, 20]
        assert (source.annotations.names, source.labels().tolist()) == (("a", "b"), [1, 0, 1])

    def test_numbers_without_names(self, tmp_path: Path) -> None:
        source = opened(write(tmp_path / "x.parquet", image=IMAGES[:3], label=[10, 9, 10]))
        assert (source.annotations.names, source.labels().tolist()) == (("9", "10"), [1, 0, 1])

    @pytest.mark.parametrize(
        "about",
        [
            {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["cat", "dog", "owl"]}},
            {
                "_type": "Sequence",
                "feature": {"_type": "ClassLabel", "names": ["cat", "dog", "owl"]},
            },
            [{"_type": "ClassLabel", "names": ["cat", "dog", "owl"]}],
        ],
    )
    def test_lists_are_several_classes(self, tmp_path: Path, about: Any) -> None:
        """In the three ways in which `datasets` has written them."""
        labels = [[0, 2], [], None, [2]]
        features = {"image": {"_type": "Image"}, "label": about}
        source = opened(write(tmp_path / "x.parquet", features, image=IMAGES[:4], label=labels))
        assert source.annotations == MultiLabels(names=("cat", "dog", "owl"))
        assert source.labels().tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 0, 1]]
        assert source[0].annotation.tolist() == [1, 0, 1]

    def test_lists_of_words(self, tmp_path: Path) -> None:
        labels = [["owl", "cat"], ["owl"], None]
        source = opened(write(tmp_path / "x.parquet", image=IMAGES[:3], labels=labels))
        assert source.annotations == MultiLabels(names=("cat", "owl"))
        assert source.labels().tolist() == [[1, 1], [0, 1], [-1, -1]]

    def test_a_class_in_a_list_without_a_name(self, tmp_path: Path) -> None:
        features = {"label": {"_type": "List", "feature": {"names": ["cat"]}}}
        file = write(tmp_path / "x.parquet", features, image=IMAGES[:2], label=[[0], [0, 3]])
        with pytest.raises(DataError, match="label 3 of column label has no class name"):
            opened(file)

    def test_no_labels(self, tmp_path: Path) -> None:
        source = opened(write(tmp_path / "x.parquet", image=IMAGES))
        assert (source.annotations.names, source.labels().tolist()) == ((), [-1] * 6)

    def test_no_image_column(self, tmp_path: Path) -> None:
        file = write(tmp_path / "x.parquet", text=["a"], label=[1])
        with pytest.raises(DataError, match=r"no image column, only text \(string\), label"):
            opened(file)

    def test_two_files_of_different_kinds(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", image=IMAGES)
        write(tmp_path / "b.parquet", image=[image["bytes"] for image in IMAGES])
        with pytest.raises(
            DataError, match=r"a\.parquet and b\.parquet differ: images image \(a struct\)"
        ):
            opened(tmp_path)

    def test_a_label_beyond_the_names(self, tmp_path: Path) -> None:
        file = write(tmp_path / "x.parquet", FEATURES, image=IMAGES[:2], label=[0, 2])
        with pytest.raises(DataError, match="label 2 of column label has no class name"):
            opened(file)

    @pytest.mark.parametrize("cut", [0, 10, 500])
    def test_half_a_file(self, tmp_path: Path, cut: int) -> None:
        file = write(tmp_path / "x.parquet", image=IMAGES)
        file.write_bytes(file.read_bytes()[:cut])
        with pytest.raises(DataError, match=r"x\.parquet is not a Parquet file, or truncated"):
            opened(file)


class TestNulls:
    def test_of_images_are_refused(self, tmp_path: Path) -> None:
        images = [IMAGES[0], None, {"bytes": None, "path": "far.png"}, IMAGES[3]]
        source = opened(write(tmp_path / "x.parquet", image=images, label=[5, 6, 7, 8]))
        assert levels(source) == [0, 30]
        assert [source.annotations.names[label] for label in source.labels()] == ["5", "8"]
        assert source.refused == [(f"x.parquet:{row}", "has no bytes (null)") for row in (1, 2)]
        assert source.name(1) == "x.parquet:3"

    def test_of_labels_are_no_label(self, tmp_path: Path) -> None:
        for features in (None, FEATURES):
            file = write(tmp_path / "x.parquet", features, image=IMAGES[:3], label=[1, None, 0])
            assert opened(file).labels().tolist() == [1, -1, 0]


class TestSplits:
    def test_by_name_and_by_folder(self, tmp_path: Path) -> None:
        for number, name in enumerate(
            ("a/train-00000-of-00002", "a/train-00001-of-00002", "a/test-00000-of-00001",
             "b/train/0000", "b/validation/0000")
        ):  # fmt: skip
            write(tmp_path / f"{name}.parquet", image=[IMAGES[number]])
        a, b = Parquet(path=str(tmp_path / "a")), Parquet(path=str(tmp_path / "b"))
        assert a.splits() == b.splits() == ("train", "test")
        assert (levels(a.open("train")), levels(a.open("test"))) == ([0, 10], [20])
        assert (levels(b.open("train")), levels(b.open("test"))) == ([30], [40])

    def test_one_that_is_named_oddly_is_all(self, tmp_path: Path) -> None:
        write(tmp_path / "everything-00000-of-00001.parquet", image=IMAGES)
        assert len(opened(tmp_path)) == 6

    def test_several_that_are_named_oddly(self, tmp_path: Path) -> None:
        for name in ("labelled", "holdout"):
            write(tmp_path / f"{name}-00000-of-00001.parquet", image=IMAGES)
        with pytest.raises(DataError, match="the splits holdout, labelled, but none is called"):
            opened(tmp_path)
        assert len(opened(f"{tmp_path}/labelled-*.parquet")) == 6

    def test_files_of_no_split_are_counted_by_their_place(self, tmp_path: Path) -> None:
        """Equal names in two folders are two files, and a damaged one that nobody needs does not stop a run."""
        write(tmp_path / "train/0.parquet", image=IMAGES)
        for name, rows in (("a", 1), ("b", 2)):
            write(tmp_path / name / "0.parquet", image=IMAGES[:rows])
        (tmp_path / "a" / "1.parquet").write_bytes(b"PAR1")
        source = opened(tmp_path)
        assert source.beside == {"a/0.parquet": 1, "b/0.parquet": 2, "a/1.parquet": 0}
        assert source.notes == ("1.parquet is not Parquet, or truncated; no split needs it",)

    def test_damaged_files_of_val_are_named(self, tmp_path: Path) -> None:
        for name in ("train", "test", "val-0"):
            write(tmp_path / f"{name}.parquet", image=IMAGES)
        (tmp_path / "val-1.parquet").write_bytes(b"")
        assert opened(tmp_path).notes == (
            "6 images in val-0.parquet and the like are not used; the test split has its own files",
            "val-1.parquet is not Parquet, or truncated; no split needs it",
        )

    def test_a_test_split_without_a_training_split_is_for_training(self, tmp_path: Path) -> None:
        for name in ("test-000", "other"):
            write(tmp_path / f"{name}.parquet", image=IMAGES)
        source = opened(tmp_path)
        assert len(source) == 12
        said = "test-000.parquet is in the train split, because no file is called train"
        assert source.notes == (said,)

    def test_no_test_split(self, tmp_path: Path) -> None:
        write(tmp_path / "train.parquet", image=IMAGES)
        with pytest.raises(
            DataError, match=r"has no Parquet files for test; .* such as test-00000-of"
        ):
            opened(tmp_path, "test")


class TestLarge:
    def test_is_mapped_from_a_copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write(tmp_path / "x.parquet", rows=2, image=IMAGES)
        in_memory = levels(opened(file))
        monkeypatch.setattr(parquet_images, "_IN_MEMORY", 0)
        monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
        assert levels(opened(file)) == in_memory
        assert len(list((tmp_path / "cache").glob("parquet-*.arrow"))) == 1
        monkeypatch.setattr(parquet_images, "_write", lambda *_: pytest.fail("copied again"))
        assert levels(opened(file)) == in_memory

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write(tmp_path / "x.parquet", image=IMAGES)
        monkeypatch.setattr(parquet_images, "_IN_MEMORY", 0)
        monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
        usage = type("Usage", (), {"free": 3})
        monkeypatch.setattr(parquet_images.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ResourceError, match=r"GiB are needed.*free disk space there, or store"):
            opened(file)
        assert not list((tmp_path / "cache").iterdir())
