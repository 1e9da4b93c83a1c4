"""`unmask tokenizer`: what it prints and keeps, how it goes on, and runs that learn from its codes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands.said import Unmask
from runs import tiny

from unmask.errors import ResourceError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.targets import DalleCodes

FLAGS = ["--recipe", f"{tiny.__file__}:TOKENIZING", "--threads", "1", "--workers", "0"]


@pytest.fixture
def tok(unmask: Unmask, images: Path) -> Path:
    said = unmask("tokenizer", images, *FLAGS, "--out", "tok")
    assert said.status == 0
    return Path("tok").absolute()


def test_prints_the_plan_and_what_the_codes_keep(unmask: Unmask, images: Path) -> None:
    said = unmask("tokenizer", images, *FLAGS, "--out", "tok")
    assert said.status == 0
    for words in (
        f"images 11 colour images for training in {images}, 1 for testing (held out, drawn from seed 0)",
        "tokenizer 16 codes (4 x 4 levels) of patches of 2, 4 x 4 in 8 pixels; ",
        "steps 6 (2 epochs)",
        "step 6 of 6, loss",
        "evaluated on 1 held-out images: tokenizer ",
        "dB, perplexity ",
        "of 16 codes (",
        "k-means ",
        f"use it: unmask pretrain {images} objective.target:tokenizer --objective.target.path tok",
    ):
        assert words in said.out
    found = json.loads(Path("tok/results.json").read_text())
    assert found["images"] == 1
    assert 0 < found["tokenizer"]["psnr"] < 60
    assert 1 <= found["tokenizer"]["perplexity"] <= found["tokenizer"]["used"] <= 16
    assert Path("tok/codes.png").stat().st_size > 1000
    again = unmask("tokenizer", "--resume", "tok")
    assert (again.status, "tok is finished: 6 of 6 steps are done" in again.out) == (0, True)
    other = unmask("tokenizer", "--resume", "tok", "--seed", "1")
    assert "--resume continues a run exactly, so --seed cannot change" in other.err


def test_the_picture_is_drawn_before_the_run_counts_as_finished(
    unmask: Unmask, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: RunFolder, result: object) -> None:
        raise ResourceError(f"{folder.root} is full")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_results", full)
        said = unmask("tokenizer", images, *FLAGS, "--out", "tok")
    assert (said.status, said.err) == (1, "unmask: tok is full")
    assert Path("tok/codes.png").exists()
    assert "look at it: tok/codes.png" in unmask("tokenizer", "--resume", "tok").out
    assert Path("tok/results.json").exists()


def test_a_run_learns_its_codes_and_needs_it_no_more(
    unmask: Unmask, images: Path, tok: Path, recipe: list[str]
) -> None:
    codes = ["objective.target:tokenizer", "--objective.target.path", "tok"]
    said = unmask("pretrain", images, *recipe, "--out", "run", *codes)
    assert said.status == 0
    spec = json.loads(Path("run/spec.json").read_text())["job"]["recipe"]["objective"]["target"]
    assert (spec["path"], spec["tokenizer"]["codes"]) == (str(tok), 16)
    weights = tiny.newest(RunFolder(tok)).read("model")
    kept = tiny.newest(RunFolder("run")).read("model")
    for name, tensor in weights.items():
        assert kept[f"target.tokenizer.{name}"].equal(tensor)
    shutil.rmtree(tok)
    sheet = unmask("reconstruct", "run", images / "00.png", "--out", "sheet.png")
    assert sheet.status == 0
    assert "error" in sheet.out
    again = unmask("pretrain", images, *recipe, "--init", "run", "--out", "more", *codes[:1],
                   "--objective.target.path", tok, "--objective.target.tokenizer.codes", "16",
                   "--objective.target.tokenizer.width", "8", "--objective.target.tokenizer.depth", "1")  # fmt: skip
    assert again.status == 0
    assert "encoder and decoder" in again.out


def test_what_a_tokenizer_is_not(
    unmask: Unmask, images: Path, tok: Path, recipe: list[str]
) -> None:
    codes = ["objective.target:tokenizer", "--objective.target.path"]

    def refused(*words: object) -> str:
        said = unmask("pretrain", images, *recipe, "--out", "run", *words)
        assert said.status != 0
        assert not Path("run").exists()
        return said.err

    assert "nowhere holds no tokenizer (no spec.json)" in refused(*codes, "nowhere")
    assert "has patches of 2 pixels and 3 channels, but the encoder has patches of 4" in refused(
        *codes, "tok", "--encoder.patch-size", "4"
    )
    assert "--objective.target.path" in refused(codes[0])
    for command in (("evaluate", "tok", images), ("finetune", "tok", images)):
        assert "is a tokenizer, which has no encoder" in unmask(*command).err
    tiny.finished_run(Path("mae"), images)
    assert "is a run of `unmask pretrain`, not a tokenizer" in refused(*codes, "mae")
    grey = tiny.write_images(Path("grey"), channels=1)
    said = unmask("pretrain", grey, *recipe, "--out", "run", *codes, "tok")
    assert (
        "has patches of 2 pixels and 3 channels, but the encoder has patches of 2 pixels and 1"
        in said.err
    )


def test_too_little_to_learn_codes_from(unmask: Unmask, images: Path) -> None:
    said = unmask("tokenizer", images, *FLAGS, "--tokenizer.codes", "512", "--out", "tok")
    assert "11 images of 4 x 4 patches are 176 patches, fewer than the 512 codes" in said.err
    assert "set --tokenizer.codes 128" in said.err
    Path("one").mkdir()
    shutil.copy(images / "00.png", "one")
    said = unmask("tokenizer", "one", *FLAGS, "--out", "tok")
    assert "holds one image" in said.err
    said = unmask("tokenizer", images, "--recipe", "tokeniser-ti4")
    assert "did you mean 'tokenizer-ti4'" in said.err
    assert "which images?" in unmask("tokenizer").err
    assert not Path("tok").exists()


def test_stops_and_goes_on_bit_for_bit(tmp_path: Path, images: Path) -> None:
    from threading import Event

    from unmask.runs.training import training

    def steps(folder: RunFolder, stop: Event) -> None:
        run = Run.read(folder, "tokenizer")
        source = run.data.open("train")
        start, _ = folder.newest()
        for _ in training(run, folder, source, run.build(), stop, start):
            pass

    stopped = Event()
    stopped.set()
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    for folder in (whole, halves):
        folder.create(tiny.tokenizer_run(images))
    steps(whole, Event())
    for _ in range(3):
        steps(halves, stopped)
    steps(halves, Event())
    ours, theirs = tiny.newest(whole), tiny.newest(halves)
    assert ours.info.step == theirs.info.step == 6
    assert "encoder" not in ours.info.checksums
    for part in ("model", "training/optimizer"):
        tiny.assert_same_tensors(ours.read(part), theirs.read(part))
    assert tiny.timeless(whole) == tiny.timeless(halves)
    assert torch.tensor([line["loss"] for line in tiny.timeless(whole)]).isfinite().all()


def test_a_run_learns_dalles_codes(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    file = tiny.write_dalle(Path("encoder.pt"), DalleCodes(path="", codes=16, width=4, depth=1))
    codes = ["objective.target:dalle", "--objective.target.path"]
    said = unmask("pretrain", images, *recipe, "--out", "run", *codes, file)
    assert said.status == 0
    spec = json.loads(Path("run/spec.json").read_text())["job"]["recipe"]["objective"]["target"]
    assert (spec["kind"], spec["codes"], spec["width"]) == ("dalle", 16, 4)
    file.unlink()
    sheet = unmask("reconstruct", "run", images / "00.png", "--out", "sheet.png")
    assert sheet.status != 0
    assert "into pictures without its decoder" in sheet.err
    assert not Path("sheet.png").exists()
    said = unmask("pretrain", images, *recipe, "--out", "other", *codes, "encoder.pkl")
    assert (
        "encoder.pkl does not exist; set --objective.target.path to the released encoder.pkl"
        in said.err
    )
    grey = tiny.write_images(Path("grey"), channels=1)
    tiny.write_dalle(file, DalleCodes(path="", codes=16, width=4, depth=1))
    said = unmask("pretrain", grey, *recipe, "--out", "other", *codes, file)
    assert "DALL-E's tokenizer needs colour images with 3 channels, and these have 1" in said.err
    assert not Path("other").exists()
