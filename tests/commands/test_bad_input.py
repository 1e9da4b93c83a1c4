"""Whatever is wrong, one message names it and the mend, and nothing is lost."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from commands.said import Unmask
from runs import tiny

from unmask.commands import reconstruct
from unmask.console.screen import Screen
from unmask.recipes import RECIPES
from unmask.runs import plan
from unmask.runs.folder import RunFolder
from unmask.training import checkpoint


def test_unknown_command(unmask: Unmask) -> None:
    said = unmask("pretrian")
    assert said.status == 1
    assert "unknown command 'pretrian'; did you mean 'pretrain'?" in said.err


def test_no_command_prints_help(unmask: Unmask) -> None:
    said = unmask()
    assert said.status == 0
    assert "usage: unmask COMMAND" in said.out


def test_version(unmask: Unmask) -> None:
    assert unmask("--version").out.startswith("unmask 0.")


def test_no_data(unmask: Unmask) -> None:
    said = unmask("pretrain")
    assert said.status == 1
    assert "which images? `unmask pretrain FOLDER`" in said.err


def test_missing_data(unmask: Unmask) -> None:
    said = unmask("pretrain", "gone")
    assert said.status == 1
    assert (
        "unmask: gone does not exist; DATA is a folder of images, tar shards, Parquet" in said.err
    )


def test_data_is_a_file(unmask: Unmask, images: Path) -> None:
    said = unmask("pretrain", images / "00.png")
    assert said.status == 1
    assert "00.png is a file" in said.err


def test_a_picture_that_is_a_program_is_not_run(
    unmask: Unmask,
    images: Path,
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ghostscript on the path would run a PostScript file, whatever it is called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    folder = Path(shutil.copytree(images, tmp_path / "some"))
    script = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    (folder / "script.jpg").write_text(script)
    words = ("--recipe", f"{tiny.__file__}:RECIPE", "--epochs", "1", "--max-set-aside", "0.5")
    said = unmask("pretrain", folder, *words, "--workers", "0", "--out", tmp_path / "run")
    assert said.status == 0, said.err
    assert "script.jpg: not an image of a known format" in said.all
    for masked in (("--mask", folder / "script.jpg", folder / "00.png"), (folder / "script.jpg",)):
        said = unmask("reconstruct", trained.root, *masked, "--out", tmp_path / "sheet.png")
        assert said.status == 1
    assert not (tmp_path / "ran").exists()


def test_empty_folder(unmask: Unmask, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    said = unmask("pretrain", tmp_path / "nothing")
    assert said.status == 1
    assert "no image found" in said.err
    assert "it is empty" in said.err


def test_no_image_among_files(unmask: Unmask, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.pdf", "README", ".hidden.png"):
        (tmp_path / name).write_text("words")
    said = unmask("pretrain", tmp_path)
    assert said.status == 1
    assert "it contains 2 .txt, 1 (no ending), 1 .pdf" in said.err
    assert ".jpg" in said.err


def huge_png(side: int) -> bytes:
    """The header of a square picture, and no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


BAD_FILES = {
    "empty.png": (b"", "empty (0 bytes)"),
    "text.jpg": (b"not a picture", "not an image of a known format"),
    "bomb.png": (huge_png(15_000), "178956970 pixels"),
}


def test_a_bomb_is_not_called_damaged(unmask: Unmask, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(huge_png(15_000))
    said = unmask("pretrain", tmp_path)
    assert said.status == 1
    assert "damaged or truncated" not in said.err


@pytest.mark.parametrize("name", BAD_FILES)
def test_only_bad_files(unmask: Unmask, tmp_path: Path, name: str) -> None:
    data, reason = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    said = unmask("pretrain", tmp_path)
    assert said.status == 1
    assert "none of the 1 image files" in said.err
    assert f"{name}: " in said.err
    assert reason in said.err


def test_bad_files_among_good_ones(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    folder = tiny.write_images(tmp_path / "photos")
    for name, (data, _) in BAD_FILES.items():
        (folder / name).write_bytes(data)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    cut = folder / "00.png"
    cut.write_bytes(cut.read_bytes()[:70])
    said = unmask("pretrain", folder, *recipe, "--out", "run", "--max-set-aside", "0.5")
    assert said.status == 0
    assert "4 cannot be used, the first is bomb.png: " in said.out
    assert "listed in run/set_aside.csv" in said.out
    listed = Path("run/set_aside.csv").read_text()
    for name in (*BAD_FILES, "gone.png", "00.png"):
        assert f"{name}," in listed


def test_too_many_bad_files(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    folder = tiny.write_images(tmp_path / "photos")
    (folder / "empty.png").touch()
    said = unmask("pretrain", folder, *recipe, "--out", "run")
    assert said.status == 1
    assert "1 of 13 images cannot be used, more than the allowed 5%" in said.err
    assert "empty.png" in said.err
    assert "--max-set-aside" in said.err
    assert Path("run/set_aside.csv").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    folder = tiny.write_images(tmp_path / "photos")
    (folder / "00.png").chmod(0)
    said = unmask("pretrain", folder, *recipe, "--out", "run", "--max-set-aside", "0.1")
    assert said.status == 0
    assert "permission denied" in said.out


def test_names_of_all_kinds(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    folder = tiny.write_images(tmp_path / "Füße & 图片")
    (folder / "00.png").rename(folder / f"{'long ' * 45}.png")
    (folder / "01.png").rename(folder / "[red] [b] -- ünï\n.PNG")
    said = unmask("pretrain", folder, *recipe, "--out", "my run")
    assert said.status == 0
    assert "images 12 colour" in said.out
    assert f"in {folder}" in said.out
    again = unmask("reconstruct", "my run", folder, "--out", "a sheet.png")
    assert again.status == 0
    assert Path("a sheet.png").exists()


def test_names_that_are_not_text(
    unmask: Unmask, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rich keeps what it could not print
    monkeypatch.setattr(reconstruct, "console", Screen())
    folder = tiny.write_images(tmp_path / "photos", 2)
    (folder / "01.png").rename(folder / os.fsdecode(b"bytes-\xff.png"))
    assert unmask("reconstruct", trained.root, folder).status == 0


def test_brackets_in_names_are_printed(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    folder = tiny.write_images(tmp_path / "photos [holiday]")
    said = unmask("pretrain", folder, *recipe, "--out", "run [bold]")
    assert f"in {folder}" in said.out
    assert "done: run [bold]" in said.out


def test_small_images(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", images, *recipe, "--image-size", "16x12", "--out", "run")
    assert said.status == 0
    assert "some are smaller than the crop (10 < 12 pixels) and will be enlarged" in said.out


CHOOSING = [["--image-size", "30"]]
"""Flags that are tried without a recipe, which is then chosen."""

BAD_FLAGS: list[Any] = [
    (["--recipe", "mae-digit"], "unknown recipe 'mae-digit'; did you mean 'mae-digits'?"),
    (["--recipe", "gone.py:MINE"], "'gone.py:MINE' is not a recipe: write ./FILE.py:NAME"),
    (["--image-size", "30"], "30 x 30 pixels cannot be divided into patches of 4 x 4"),
    (["--image-size", "30"], "the nearest size that works is 32 x 32 (--image-size 32)"),
    (["--image-size", "9x8"], "(--image-size 8)"),
    (["--image-size", "x9"], "one number or HEIGHTxWIDTH, such as 224 or 192x320; got 'x9'"),
    (["--data-kind", "foldr"], "unknown --data-kind 'foldr'; did you mean 'folder'?"),
    (
        ["--epoch", "3"],
        "unmask: --epoch is not a flag of `unmask pretrain`; did you mean --epochs?",
    ),
    (["--epochs", "0"], "--epochs must be above 0"),
    (["--epochs", "many"], "--epochs"),
    (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    (["--precision", "float8"], "one of auto, float32, bfloat16, float16, got 'float8'"),
    (
        ["--objective.masking.ratio", "1"],
        "--objective.masking.ratio must lie between 0 and 1, got 1; MAE uses 0.75",
    ),
    (["--objective.masking.ratio", "0.99"], "keep none of the 16 patches"),
    (["--objective.masking.ratio", "0.99"], "a ratio between 0.0625 and 0.938"),
    (["objective.masking:blok"], "blok"),
    (["--objective.masking.stride", "2"], "--objective.masking.stride"),
    (["--encoder.embed-dim", "30"], "must be a multiple of 4"),
    (
        ["--encoder.num-heads", "5"],
        "--encoder.embed-dim must be a multiple of --encoder.num-heads, got 8 and 5",
    ),
    (
        ["--device", "nonsense"],
        "--device must be cpu, cuda (or gpu), cuda:1 for the second GPU, mps, or auto; got 'nonsense'",
    ),
    (["--workers", "-1"], "--workers must not be negative, got -1"),
    (["--micro-batch", "0"], "--micro-batch must be at least 1, got 0"),
    (["--epochs", "nan"], "epochs must be a finite number"),
    (["--epochs", "inf"], "epochs must be a finite number"),
    (["--save-every-minutes", "-1"], "--save-every-minutes must not be negative, got -1"),
    (["--max-set-aside", "7"], "--max-set-aside must lie between 0 and 1, got 7; 7 % is 0.07"),
    (["--image-size", "2"], "use a larger image (--image-size) or a smaller patch"),
    (["--threads", "0"], "--threads must be at least 1, got 0"),
    (["--threads", "-1"], "--threads must be at least 1, got -1"),
    (["extra"], "unexpected argument 'extra'; `unmask pretrain` takes DATA"),
]


@pytest.mark.parametrize(
    ("flags", "words"),
    BAD_FLAGS,
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_flags(
    unmask: Unmask, images: Path, recipe: list[str], flags: list[str], words: str
) -> None:
    """One sentence of ours; nothing is written."""
    small = recipe if flags not in CHOOSING else []
    said = unmask("pretrain", images, *small, *flags, "--out", "run")
    assert said.status == 1
    assert words in said.err
    assert said.err.startswith("unmask: ")
    assert not Path("run").exists()


def test_misspelt_recipe_says_where_all_are_listed(unmask: Unmask, images: Path) -> None:
    said = unmask("pretrain", images, "--recipe", "b16")
    assert "`unmask help recipes` lists all" in said.err
    listed = unmask("help", "recipes").out
    assert all(name in listed for name in RECIPES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LONG = 3", "no Recipe called 'MINE'; it has []"),
        (
            "from unmask.masking import RandomMasking\nMINE = RandomMasking(ratio=2.0)",
            "got 2; 2 % is 0.02",
        ),
        ("1 / 0", "division by zero"),
        ("MINE = (", "mine.py"),
    ],
)
def test_bad_recipe_file(unmask: Unmask, images: Path, text: str, words: str) -> None:
    Path("mine.py").write_text(text)
    said = unmask("pretrain", images, "--recipe", "mine.py:MINE")
    assert said.status == 1
    assert words in said.err


def test_not_enough_memory_for_the_weights(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "memory_available", lambda device: 2**10)
    said = unmask("pretrain", images, *recipe, "--out", "run")
    assert said.status == 1
    assert "weights, gradients and optimizer need" in said.err
    assert "smaller recipe with --recipe" in said.err
    assert not Path("run").exists()


def test_warmup_as_long_as_the_run(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", images, *recipe, "--schedule.warmup-epochs", "1", "--out", "run")
    assert said.status == 1
    assert "a warm-up of 1 epochs fills the whole run of 1" in said.err


def test_folder_that_holds_a_run(
    unmask: Unmask, images: Path, recipe: list[str], trained: RunFolder
) -> None:
    before = sorted(trained.root.rglob("*"))
    said = unmask("pretrain", images, *recipe, "--out", trained.root)
    assert said.status == 1
    assert f"{trained.root} already holds a run" in said.err
    assert f"unmask pretrain --resume {trained.root}" in said.err
    assert sorted(trained.root.rglob("*")) == before


def test_folder_that_holds_something_else(
    unmask: Unmask, images: Path, recipe: list[str], tmp_path: Path
) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_mum.txt").write_text("Dear mum")
    for out in (tmp_path / "letters", images / "00.png"):
        said = unmask("pretrain", images, *recipe, "--out", out)
        assert said.status == 1
        assert f"{out} exists and is not empty" in said.err


def test_folder_that_cannot_be_made(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", images, *recipe, "--out", images / "00.png" / "run")
    assert said.status == 1
    assert "--out" in said.err


@pytest.mark.parametrize("command", ["reconstruct", "evaluate", "pretrain"])
def test_missing_run_names_those_nearby(
    unmask: Unmask, images: Path, trained: RunFolder, command: str
) -> None:
    wrong = trained.root.parent / "trainde"
    words = ["--resume", wrong] if command == "pretrain" else [wrong, images]
    said = unmask(command, *words)
    assert said.status == 1
    assert f"there is no file or folder {wrong} (did you mean {trained.root}?)" in said.err
    assert f"; runs nearby: {trained.root}" in said.err


@pytest.mark.parametrize("command", ["reconstruct", "evaluate"])
def test_run_without_a_checkpoint(
    unmask: Unmask, classes: Path, tmp_path: Path, command: str
) -> None:
    folder = tiny.begin(tmp_path / "begun", classes)
    said = unmask(command, folder.root, classes)
    assert said.status == 1
    assert f"{folder.root} has no checkpoint to load: none is written yet" in said.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"spec_version": 99}',
            "version 99, and this unmask reads up to 4; install a newer unmask",
        ),
        ("{", "spec.json cannot be read"),
        ("{}", "field 'spec_version' is missing"),
        ('{"spec_version": 1, "sead": 3}', "spec.json cannot be read"),
        ("[]", "spec.json cannot be read"),
        ("null", "spec.json cannot be read"),
    ],
)
def test_damaged_spec(unmask: Unmask, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.json").write_text(text)
    said = unmask("pretrain", "--resume", tmp_path / "run")
    assert said.status == 1
    assert words in said.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": 7}', "has checkpoint format 7, and this unmask reads up to 1"),
        ("{", "all are damaged"),
        ('{"format": "one"}', "all are damaged"),
    ],
)
def test_damaged_checkpoint(
    unmask: Unmask, images: Path, tmp_path: Path, text: str, words: str
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    tiny.one_step(folder)
    (tiny.newest(folder).folder / "info.json").write_text(text)
    said = unmask("reconstruct", folder.root, images)
    assert said.status == 1
    assert words in said.err


def test_full_disk(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    said = unmask("pretrain", images, *recipe, "--out", "run")
    assert said.status == 1
    assert "No space left on device" in said.err
    assert "continue with --resume" in said.err
    assert json.loads(Path("run/log.jsonl").read_text().splitlines()[-1])["step"] == 3


def test_loss_that_is_not_finite(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    flags = ["--schedule.base-lr", "1e30", "--save-every-minutes", "0", "--epochs", "3"]
    said = unmask("pretrain", images, *recipe, *flags, "--out", "run")
    assert said.status == 1
    assert "the loss of step" in said.err
    assert "--schedule.base-lr" in said.err


@pytest.mark.parametrize(
    "reason", ["DataLoader worker (pid 7) is killed by signal: Killed. ", "a mistake of ours"]
)
def test_a_loading_process_that_dies_while_a_step_is_computed(
    unmask: Unmask, images: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """torch says so wherever the program is; of any other error the traceback stays."""

    def interrupted(_: list[str]) -> int:
        raise RuntimeError(reason)

    monkeypatch.setattr("unmask.commands.pretrain.main", interrupted)
    if "DataLoader" not in reason:
        with pytest.raises(RuntimeError, match=reason):
            unmask("pretrain", images)
        return
    said = unmask("pretrain", images)
    assert said.status == 1
    assert "unmask: a loading process died, most likely because memory ran out" in said.err
