"""Tar shards: what becomes a sample, its label, and what is wrong with a shard."""

import io
import json
import os
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.annotations import MultiLabels, Unlabelled
from unmask.data import Shards, cache, tar_index
from unmask.data.image_files import EncodedImages
from unmask.errors import DataError, RunError


def png(level: int, side: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def opened(path: Path | str, split: str = "train") -> EncodedImages:
    return Shards(path=str(path)).open(split)


def names(source: EncodedImages) -> list[str]:
    return [source.name(position) for position in range(len(source))]


def levels(source: EncodedImages) -> list[int]:
    return [int(source[position].image[0, 0, 0]) for position in range(len(source))]


class TestSamples:
    def test_members_of_a_key_are_one_sample(self, tmp_path: Path) -> None:
        """Numbers in .cls are classes in the order of the numbers, named by .json."""
        members = [
            ("b.png", png(10)),
            ("b.cls", b"10"),
            ("b.json", json.dumps({"label": 10, "name": "owl"}).encode()),
            ("a.cls", b"9\n"),
            ("a.png", png(20)),
            ("a.txt", b"a caption"),
        ]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert names(source) == ["b.png", "a.png"]  # in the order of the shard
        assert levels(source) == [10, 20]
        assert source.annotations.names == ("9", "owl")
        assert source.labels().tolist() == [1, 0]
        assert [sample.annotation for sample in (source[0], source[1])] == [1, 0]
        assert dict(source.others) == {".txt": 1}
        assert source.refused == []

    def test_words_as_labels(self, tmp_path: Path) -> None:
        members = [(f"{n}.{e}", d) for n, w in (("1", b"owl"), ("2", b"cat")) for e, d in
                   (("png", png(5)), ("cls", w))]  # fmt: skip
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert (source.annotations.names, source.labels().tolist()) == (("cat", "owl"), [1, 0])

    def test_label_in_json_alone(self, tmp_path: Path) -> None:
        members = []
        for name, label in (("1", 3), ("2", 1)):
            members += [
                (f"{name}.png", png(5)),
                (f"{name}.json", json.dumps({"label": label}).encode()),
            ]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert (source.annotations.names, source.labels().tolist()) == (("1", "3"), [1, 0])

    def test_a_sample_without_a_label_among_others(self, tmp_path: Path) -> None:
        members = [("1.png", png(5)), ("1.cls", b"0"), ("2.png", png(6))]
        assert opened(write_tar(tmp_path / "x.tar", members)).labels().tolist() == [0, -1]

    def test_lists_in_json_are_several_classes(self, tmp_path: Path) -> None:
        """Of two images, none and one that says nothing; a plain label among them is a list of one."""
        labels = {"1": ["owl", "cat"], "2": [], "3": None, "4": "owl"}
        members = []
        for name, label in labels.items():
            members.append((f"{name}.png", png(5)))
            if label is not None:
                members.append((f"{name}.json", json.dumps({"label": label}).encode()))
        shard = write_tar(tmp_path / "x.tar", members)
        for _ in range(2):  # the second time from the kept index
            source = opened(shard)
            assert source.annotations == MultiLabels(names=("cat", "owl"))
            assert source.labels().tolist() == [[1, 1], [0, 0], [-1, -1], [0, 1]]
            assert source[0].annotation.dtype == torch.float32
            assert source[3].annotation.tolist() == [0, 1]

    def test_names_of_several_classes(self, tmp_path: Path) -> None:
        about = [{"label": [7, 12], "class_name": ["cat", "owl"]}, {"label": [12]}]
        members = []
        for number, one in enumerate(about):
            members += [(f"{number}.png", png(5)), (f"{number}.json", json.dumps(one).encode())]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert source.annotations == MultiLabels(names=("cat", "owl"))
        assert source.labels().tolist() == [[1, 1], [0, 1]]

    def test_no_label_in_json(self, tmp_path: Path) -> None:
        members = [("1.png", png(5)), ("1.json", json.dumps({"label": None}).encode())]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert source.annotations == Unlabelled()
        assert source[0].annotation is None

    def test_folders_are_classes_where_nothing_else_is(self, tmp_path: Path) -> None:
        members = [("owl/1.png", png(5)), ("cat/1.png", png(6)), ("cat/2.jpg", png(7))]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert (source.annotations.names, source.labels().tolist()) == (("cat", "owl"), [1, 0, 0])

    def test_the_first_dot_ends_the_key(self, tmp_path: Path) -> None:
        members = [("v1.0/a.b.png", png(9)), ("v1.0/c.png", png(5)), ("v1.0/c.seg.png", png(1))]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert levels(source) == [5]  # .b.png and .seg.png are no images of their own
        assert dict(source.others) == {".b.png": 1, ".seg.png": 1}

    def test_long_and_foreign_names(self, tmp_path: Path) -> None:
        name = "a" * 200 + "/" + "ü" * 90 + ".png"
        assert names(opened(write_tar(tmp_path / "x.tar", [(name, png(3))]))) == [name]

    def test_hidden_members_are_skipped(self, tmp_path: Path) -> None:
        source = opened(write_tar(tmp_path / "x.tar", [("._a.png", b"x"), ("a.png", png(3))]))
        assert (names(source), source.refused) == (["a.png"], [])


class TestFiles:
    def test_a_range_is_read_in_order(self, tmp_path: Path) -> None:
        for number in (8, 9, 10):
            write_tar(tmp_path / f"s-{number:03}.tar", [("k.png", png(number))])
        assert levels(opened(tmp_path / "s-{008..010}.tar")) == [8, 9, 10]
        assert levels(opened(tmp_path / "s-*.tar")) == [8, 9, 10]
        assert levels(opened(tmp_path)) == [8, 9, 10]

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "s-0.tar", [("k.png", png(1))])
        with pytest.raises(DataError, match=r"1 of the 2 files .* missing, the first is .*s-1.tar"):
            opened(tmp_path / "s-{0..1}.tar")

    def test_a_range_that_runs_backwards(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="write the smaller number first"):
            opened(tmp_path / "s-{3..1}.tar")

    def test_splits_are_seen_in_names_and_folders(self, tmp_path: Path) -> None:
        for folder, name in (("a", "train-0.tar"), ("a", "val-0.tar")):
            write_tar(tmp_path / folder / name, [("k.png", png(len(name)))])
        for folder in ("train", "test"):
            write_tar(tmp_path / "b" / folder / "0.tar", [("k.png", png(len(folder)))])
        a, b = Shards(path=str(tmp_path / "a")), Shards(path=str(tmp_path / "b"))
        assert a.splits() == b.splits() == ("train", "test")
        assert (levels(a.open("train")), levels(a.open("test"))) == ([11], [9])
        assert (levels(b.open("train")), levels(b.open("test"))) == ([5], [4])

    def test_other_names_are_all_to_learn_from(self, tmp_path: Path) -> None:
        for name in ("aerial.tar", "ground.tar"):
            write_tar(tmp_path / name, [(f"{name[:-4]}.png", png(1))])
        data = Shards(path=str(tmp_path))
        assert data.splits() == ("train",)
        assert len(data.open()) == 2

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            opened(tmp_path / "gone.tar")
        with pytest.raises(DataError, match=r"no \.tar file found"):
            opened(tmp_path)

    def test_a_test_split_without_a_training_split_is_for_training(self, tmp_path: Path) -> None:
        for number, name in enumerate(("test-000", "test-001", "val-000", "x")):
            write_tar(tmp_path / f"{name}.tar", [("a.png", png(number))])
        source = opened(tmp_path)
        assert levels(source) == [0, 1, 2, 3]
        said = "test-000.tar and 2 more are in the train split, because no file is called train"
        assert source.notes == (said,)

    def test_a_split_that_is_missing(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "x.tar", [("a.png", png(1))])
        with pytest.raises(DataError, match=r"has no shards for test; .* such as test-000\.tar"):
            opened(tmp_path, "test")

    def test_endings_in_any_case_and_folders_that_are_links(self, tmp_path: Path) -> None:
        """In the order of their paths, without hidden ones."""
        for number, name in enumerate(("b/1.TAR", "b/c/0.tar", "b.tar", ".h/0.tar", "b/.0.tar")):
            write_tar(tmp_path / "data" / name, [("a.png", png(number))])
        write_tar(tmp_path / "elsewhere" / "0.tar", [("a.png", png(9))])
        (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
        assert levels(opened(tmp_path / "data")) == [9, 0, 1, 2]


class TestDamage:
    def test_names_that_lead_out_are_refused(self, tmp_path: Path) -> None:
        members = [
            ("../a.png", png(1)),
            ("/b.png", png(1)),
            ("c/../../d.png", png(1)),
            ("e.png", png(2)),
        ]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert names(source) == ["e.png"]
        assert [name for name, _ in source.refused] == [f"x.tar/{n}" for n, _ in members[:3]]
        assert {reason for _, reason in source.refused} == {"its path leads out of the archive"}

    def test_a_key_that_comes_again(self, tmp_path: Path) -> None:
        members = [("a.png", png(1)), ("b.png", png(2)), ("a.png", png(3))]
        source = opened(write_tar(tmp_path / "x.tar", members))
        assert levels(source) == [1, 2]
        assert source.refused == [("x.tar/a.png", "the key of an earlier sample in this shard")]

    def test_the_same_key_in_two_shards_is_usual(self, tmp_path: Path) -> None:
        for number in (1, 2):
            write_tar(tmp_path / f"{number}.tar", [("000.png", png(number))])
        assert levels(opened(tmp_path)) == [1, 2]

    def test_two_images_of_a_key(self, tmp_path: Path) -> None:
        source = opened(write_tar(tmp_path / "x.tar", [("a.png", png(1)), ("a.jpg", png(2))]))
        assert source.refused == [("x.tar/a.jpg", "a second image with the same key")]

    def test_a_sample_without_an_image(self, tmp_path: Path) -> None:
        source = opened(write_tar(tmp_path / "x.tar", [("a.cls", b"1"), ("b.png", png(1))]))
        assert source.refused == [("x.tar/a", "a sample without an image")]

    def test_what_is_whole_of_a_cut_shard_is_used(self, tmp_path: Path) -> None:
        shard = write_tar(tmp_path / "x.tar", [(f"{n}.png", png(n)) for n in range(5)])
        shard.write_bytes(shard.read_bytes()[: 4 * 1024 + 512 + 20])  # in the data of the fifth
        source = opened(shard)
        assert levels(source) == [0, 1, 2, 3]
        assert source.refused == [("x.tar/", "truncated after 4 images; copy it again")]

    @pytest.mark.parametrize(
        ("mode", "mend"), [("w:gz", "gunzip"), ("w:bz2", "bunzip2"), ("w:xz", "unxz")]
    )
    def test_a_compressed_shard(self, tmp_path: Path, mode: str, mend: str) -> None:
        shard = write_tar(tmp_path / "x.tar", [("a.png", png(1))], mode)
        with pytest.raises(DataError, match=f"is compressed.*{mend}"):
            opened(shard)

    def test_no_tar(self, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_bytes(b"words " * 500)
        with pytest.raises(DataError, match=r"x\.tar is not a tar file"):
            opened(tmp_path / "x.tar")

    def test_no_image_in_it(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no image found in .*it contains 1 \.txt"):
            opened(write_tar(tmp_path / "x.tar", [("a.txt", b"words")]))

    def test_a_damaged_member_is_said_when_it_is_read(self, tmp_path: Path) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
        buffer = io.BytesIO()
        noise.save(buffer, "PNG")
        source = opened(write_tar(tmp_path / "x.tar", [("a.png", buffer.getvalue()[:5000])]))
        with pytest.raises(DataError, match="damaged or truncated"):
            source[0]

    def test_a_shard_that_became_shorter(self, tmp_path: Path) -> None:
        """No image of it can be trusted, so none is quietly replaced by another."""
        shard = write_tar(tmp_path / "x.tar", [("a.png", png(1)), ("b.png", png(2))])
        source = opened(shard)
        shard.write_bytes(shard.read_bytes()[:1100])
        with pytest.raises(RunError, match=r"x\.tar has changed since it was opened"):
            source[1]


class TestIndex:
    def test_is_made_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        members = [("a.png", png(1)), ("a.cls", b"7"), ("../b.png", b""), ("c.txt", b"")]
        shard = write_tar(tmp_path / "x.tar", members)
        first = opened(shard)
        monkeypatch.setattr(tar_index, "make_index", lambda _: pytest.fail("made again"))
        again = opened(shard)
        assert (names(again), levels(again)) == (names(first), levels(first))
        assert (again.annotations.names, again.labels().tolist()) == (("7",), [0])
        assert (again.refused, again.others) == (first.refused, first.others)
        assert again.fingerprint == first.fingerprint

    def test_a_changed_shard_is_noticed(self, tmp_path: Path) -> None:
        shard = write_tar(tmp_path / "x.tar", [("a.png", png(1))])
        assert levels(opened(shard)) == [1]
        write_tar(shard, [("a.png", png(2))])  # of the same size
        os.utime(shard, (time.time() + 5, time.time() + 5))
        assert levels(opened(shard)) == [2]

    def test_a_damaged_index_is_made_again(self, tmp_path: Path) -> None:
        shard = write_tar(tmp_path / "x.tar", [("a.png", png(1))])
        opened(shard)
        for kept in cache.cache_folder().glob("shard-*"):
            kept.write_bytes(b"words")
        assert levels(opened(shard)) == [1]

    def test_without_a_place_to_keep_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "file" / "cache")
        assert levels(opened(write_tar(tmp_path / "x.tar", [("a.png", png(1))]))) == [1]
