"""`unmask pack`, as a user gives it."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from commands.said import Unmask
from runs import tiny

from unmask.data.pack import Packer, Progress
from unmask.data.pack_manifest import PACK
from unmask.runs.folder import RunFolder


def test_pack_and_train(unmask: Unmask, classes: Path, recipe: list[str]) -> None:
    """Images that are copied give the run that the folder itself gives, to the bit."""
    said = unmask("pack", classes, "shards", "--workers", "0")
    assert said.status == 0, said.err
    assert f"20 colour images in 2 classes in {classes}, about 12 x 10 pixels" in said.out
    assert "as JPEG of quality 90" in said.out
    assert "20 images in 1 shard," in said.out
    assert "20 copied bit for bit" in said.out
    assert "unmask pretrain shards" in said.out
    for data, out in ((classes, "one"), ("shards", "two")):
        assert unmask("pretrain", data, *recipe, "--out", out).status == 0
    tiny.assert_same_end(RunFolder("one"), RunFolder("two"))


def test_bands_become_arrays(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    for number in range(6):
        scene = np.random.default_rng(number).integers(0, 9000, (4, 14, 12)).astype(np.uint16)
        (tmp_path / "scenes").mkdir(exist_ok=True)
        np.save(tmp_path / "scenes" / f"{number}.npy", scene)
    said = unmask("pack", tmp_path / "scenes", "shards", "--channels", "4,2", "--short-side", "8")
    assert said.status == 0, said.err
    assert "6 2-band" in said.out
    assert "as arrays (.npy), because JPEG cannot store them" in said.out
    assert unmask("pretrain", "shards", *recipe, "--out", "run").status == 0
    refused = unmask("pretrain", "shards", *recipe, "--out", "other", "--channels", "1")
    assert "shards is packed, and --channels must be set when shards are packed" in refused.err


def test_again(unmask: Unmask, images: Path) -> None:
    assert unmask("pack", images, "shards", "--workers", "0").status == 0
    before = Path("shards/train-000000.tar").stat().st_mtime_ns
    said = unmask("pack", images, "shards", "--workers", "0")
    assert said.status == 0
    assert "shards is packed already" in said.out
    assert Path("shards/train-000000.tar").stat().st_mtime_ns == before
    refused = unmask("pack", images, "shards", "--quality", "80")
    assert refused.status == 1
    assert "shards was packed with --quality 90, not 80" in refused.err


def test_an_unfinished_folder_is_no_data(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    assert unmask("pack", images, "shards", "--workers", "0").status == 0
    description = Path("shards", PACK)
    description.write_text(description.read_text().replace('"finished": true', '"finished": false'))
    said = unmask("pretrain", "shards", *recipe, "--out", "run")
    assert said.status == 1
    assert "was interrupted; run the same command again to continue: `unmask pack" in said.err
    assert unmask("pack", images, "shards", "--workers", "0").status == 0
    assert unmask("pretrain", "shards", *recipe, "--out", "run").status == 0


def test_what_cannot_be_read_is_listed(unmask: Unmask, images: Path) -> None:
    shutil.copytree(images, "photos")
    Path("photos/00.png").write_bytes(Path("photos/00.png").read_bytes()[:60])
    said = unmask("pack", "photos", "shards", "--workers", "0", "--max-set-aside", "0.2")
    assert said.status == 0, said.err
    assert "skipped 1, listed with reasons in shards/set_aside.csv" in said.out
    assert "11 images in 1 shard," in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--short-side", "0"], "--short-side must be at least 1, got 0"),
        (["--quality", "101"], "--quality must lie between 1 and 100, got 101"),
        (["--workers", "-1"], "--workers must not be negative, got -1"),
        (["--max-set-aside", "5"], "--max-set-aside must lie between 0 and 1, got 5; 5 % is 0.05"),
        (["--channels", "1"], "--channels must be left out, because"),
        (["--data-kind", "tar"], "unknown --data-kind 'tar'"),
    ],
)
def test_senseless_flags(unmask: Unmask, images: Path, words: list[str], said: str) -> None:
    found = unmask("pack", images, "shards", *words)
    assert found.status == 1
    assert said in found.err
    assert not Path("shards").exists()


def test_senseless_folders(unmask: Unmask, images: Path) -> None:
    inside = unmask("pack", images, images / "shards")
    assert "so its shards would be read as input" in inside.err
    assert "does not exist" in unmask("pack", "nowhere", "shards").err
    Path("taken").mkdir()
    Path("taken/letter.txt").write_text("dear")
    assert "is neither empty nor a folder of packed shards" in unmask("pack", images, "taken").err


def test_ctrl_c(unmask: Unmask, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is whole stays, and the words say how to go on."""
    run = Packer.run

    def interrupted(packer: Packer, stop: Event) -> Iterator[Progress]:
        for report in run(packer, stop):
            if report.done == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(Packer, "run", interrupted)
        said = unmask("pack", images, "shards", "--workers", "0")
    assert said.status == 130
    assert "stopped; complete shards are kept (0); continue with: unmask pack " in said.out
    assert "12 images in 1 shard," in unmask("pack", images, "shards", "--workers", "0").out
