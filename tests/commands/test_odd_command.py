"""`unmask odd` from folders to scores, with a memory that is used again."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands.said import Unmask
from PIL import Image
from reference.dense import WRITERS
from runs import tiny

from unmask.runs.folder import RunFolder

ONE = ["--threads", "1"]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """`train/` with grey noise, and `test/` with the same in good/ and spotted ones in spot/, as in MVTec AD."""
    random = np.random.default_rng(0)
    masks = tmp_path / "ground_truth" / "spot"
    masks.mkdir(parents=True)
    for folder, count in (("train", 10), ("test/good", 4), ("test/spot", 4)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            pixels = random.normal(100, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            if folder == "test/spot":
                pixels[4:8, 4:8] = (255, 0, 255)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number:02}.png")
    for file in (tmp_path / "test" / "spot").iterdir():
        mask = np.zeros((16, 16), np.uint8)
        mask[4:8, 4:8] = 255
        Image.fromarray(mask).save(masks / f"{file.stem}_mask.png")
    return tmp_path


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())


def test_from_normal_images_to_scores_and_back(
    parts: Path, trained: RunFolder, unmask: Unmask
) -> None:
    out = parts / "out"
    said = unmask(
        "odd", trained.root, parts / "train", parts / "test", "--out", out, "--maps", *ONE,
        "--image-size", "16",
    )  # fmt: skip
    assert said.status == 0, said.err
    assert "all classes are odd but good" in said.all
    assert "by 2 held-out normal images, at most 33% of normal images are above it" in said.out
    assert "4 of 8 test images are odd" in said.out
    found = scores(out)
    encoder, random, pixels = found["measures"].values()
    assert pixels["image_auroc"] > 0.9  # a spot of a colour that no normal image has
    assert pixels["pixel_auroc"] > 0.9
    for each in (encoder, random, pixels):
        assert 0 < each["region_overlap"] <= 1
        assert (each["images"], each["odd"]) == (8, 4)
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["truth"] for row in rows] == ["normal"] * 4 + ["odd"] * 4
    assert len(list((out / "maps").iterdir())) == 8
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 300
    again = unmask("odd", out, parts / "test", "--out", parts / "again", *ONE)
    assert again.status == 0, again.err
    assert scores(parts / "again")["images"] == found["images"]
    assert not (parts / "again" / "memory.safetensors").exists()
    other = unmask("odd", out, parts / "test", "--alarms", "0.5", *ONE)
    assert other.status == 1
    assert "was made with its own settings" in other.err


def test_an_index_scores_as_the_exact_search_does(
    parts: Path, trained: RunFolder, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    words = ("odd", trained.root, parts / "train", parts / "test", "--control", "none", *ONE)
    for index in ("exact", "ivf"):
        said = unmask(*words, "--index", index, "--out", parts / index)
        assert said.status == 0, said.err
    again = unmask("odd", parts / "ivf", parts / "test", "--out", parts / "again", *ONE)
    assert again.status == 0, again.err
    exact, ivf, kept = (
        [row["score"] for row in scores(parts / name)["images"]]
        for name in ("exact", "ivf", "again")
    )
    assert ivf == pytest.approx(exact, rel=1e-4)
    assert kept == ivf
    monkeypatch.setitem(sys.modules, "faiss", None)
    again = unmask("odd", parts / "ivf", parts / "test", "--out", parts / "exactly", *ONE)
    assert again.status == 0, again.err
    assert [one["score"] for one in scores(parts / "exactly")["images"]] == pytest.approx(exact)
    said = unmask(*words, "--index", "ivf", "--out", parts / "none")
    assert said.status == 1
    assert "--index ivf needs faiss" in said.err
    assert """pip install "unmask[search]\"""" in said.err


def test_boxes_are_odd(parts: Path, trained: RunFolder, unmask: Unmask) -> None:
    WRITERS["coco"](parts / "coco")
    said = unmask(
        "odd", trained.root, parts / "train", parts / "coco", "--out", parts / "out", "--json", *ONE
    )
    assert said.status == 0, said.err
    assert "the boxes are odd" in said.err
    found = json.loads(said.raw)
    assert any(one["truth"] for one in found["images"])
    assert all(each["pixel_auroc"] is not None for each in found["measures"].values())


def test_one_word_for_data_with_both_folders(
    parts: Path, trained: RunFolder, unmask: Unmask
) -> None:
    (parts / "set").mkdir()
    for split in ("train", "test", "ground_truth"):
        (parts / split).rename(parts / "set" / split)
    said = unmask("odd", trained.root, parts / "set", "--out", parts / "out", "--json", *ONE)
    assert said.status == 0, said.err
    measures = json.loads(said.raw)["measures"]
    assert all(each["pixel_auroc"] is not None for each in measures.values())


def test_images_of_which_nothing_is_known(
    parts: Path, trained: RunFolder, images: Path, unmask: Unmask
) -> None:
    said = unmask("odd", trained.root, parts / "train", images, "--out", parts / "out", *ONE)
    assert said.status == 0, said.err
    assert "nothing is known of these images" in said.all
    assert scores(parts / "out")["measures"] == {}
    assert "images are odd (above" in said.out


def test_other_shapes_and_sizes_are_warned_about(
    parts: Path, trained: RunFolder, unmask: Unmask
) -> None:
    def warned(size: tuple[int, int]) -> str:
        test = tiny.write_images(parts / f"{size[0]}", 2, size)
        said = unmask("odd", trained.root, parts / "train", test, "--out", parts / "out", *ONE)
        assert said.status == 0, said.err
        return said.err

    assert "those to look at 16 x 24; both are squashed" in warned((24, 16))
    assert "those to look at 32 x 32: if they show things at other scales" in warned((32, 32))
    assert "those to look at" not in warned((17, 16))


def test_what_is_wrong_is_said(
    parts: Path, trained: RunFolder, images: Path, unmask: Unmask
) -> None:
    run, normal, test = trained.root, parts / "train", parts / "test"

    def error(*words: object) -> str:
        said = unmask("odd", *words, *ONE)
        assert said.status == 1, said.all
        return said.err

    assert "no train and test folders" in error(run, normal)
    assert "got 3 words" in error(run, normal, test, images)
    assert "the nearest size that works is 16 x 16" in error(
        run, normal, test, "--image-size", "15"
    )
    assert "--block 3 is none of the encoder's 1 blocks" in error(run, normal, test, "--block", "3")
    assert "--alarms" in error(run, normal, test, "--alarms", "2")
    assert "did you mean 'good'" in error(run, normal, test, "--good", "god")
    one = parts / "one"
    one.mkdir()
    (one / "a.png").write_bytes((normal / "00.png").read_bytes())
    assert "at least 2 normal images" in error(run, one, test)
    full = parts / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert "holds other files" in error(run, normal, test, "--out", full)


def test_a_memory_is_for_its_encoder(
    parts: Path, trained: RunFolder, images: Path, tmp_path: Path, unmask: Unmask
) -> None:
    other = tiny.finished_run(tmp_path / "mine", images)
    out = parts / "out"
    assert unmask("odd", other.root, parts / "train", images, "--out", out, *ONE).status == 0
    memory = out / "memory.safetensors"
    content = memory.read_bytes()
    memory.write_bytes(content[:-4] + b"\0\0\1\0")
    assert "checksum is wrong" in unmask("odd", out, images, *ONE).err
    memory.write_bytes(content[: len(content) // 2])
    assert "holds no memory of normal images" in unmask("odd", out, images, *ONE).err
    memory.write_bytes(content)
    other.root.rename(tmp_path / "gone")
    assert "mine" in unmask("odd", out, images, *ONE).err
    trained_again = tiny.finished_run(tmp_path / "mine", parts / "train")
    assert trained_again.root.exists()
    assert "other weights" in unmask("odd", out, images, *ONE).err
