"""`unmask convert`: what it says, what it writes, and that other commands take what it wrote."""

import argparse
import contextlib
import json
import re
from pathlib import Path

import pytest
import torch
from commands.said import Unmask
from runs import tiny
from safetensors.torch import load_file

import unmask as package
from unmask.commands import convert
from unmask.formats import FORMATS
from unmask.runs.folder import RunFolder


@pytest.mark.parametrize("layout", FORMATS)
def test_from_a_run(unmask: Unmask, trained: RunFolder, images: Path, layout: str) -> None:
    said = unmask("convert", trained.root, "new", "--to", layout)
    assert said.status == 0, said.err
    assert f"read {trained.root}: encoder and decoder (pretrained by unmask" in said.out
    assert "model 1 block of 8 with 2 heads, patches of 2, images of 8 x 8 with 3" in said.out
    found = re.search(r"checked largest difference to (\w+)\S* .*?([\d.]+e[+-]\d+)", said.out)
    assert found is not None
    assert float(found[2]) < 1e-5
    assert ("the decoder is left out, because timm has no decoders" in said.out) == (
        layout == "timm"
    )
    card = Path("new/README.md").read_text()
    assert f"data: 12 images of {images.name}, 2 epochs" in card
    assert str(images.parent) not in card
    model, run = package.load("new"), package.load(trained.root)
    files = sorted(images.iterdir())[:2]
    assert model.embed(files).cls.equal(run.embed(files).cls)
    assert model.about == "new"
    assert (model.run, model.step) == (None, None)


def test_the_function_says_nothing_and_gives_the_proof(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = package.convert(trained.root, tmp_path / "new", to="timm", license="mit")
    assert capsys.readouterr().out == ""
    assert made.file == tmp_path / "new" / "model.safetensors"
    assert made.check is not None
    assert made.check.against.startswith("timm")
    assert made.check.difference < 1e-5
    assert (made.exact, made.pushed) == (True, None)
    assert "license: mit" in (tmp_path / "new" / "README.md").read_text()


def test_no_path_of_this_machine_is_written(
    unmask: Unmask, trained: RunFolder, tmp_path: Path
) -> None:
    for layout in FORMATS:
        unmask("convert", trained.root, layout, "--to", layout)
        for file in Path(layout).iterdir():
            assert str(tmp_path.parent).encode() not in file.read_bytes(), file


def test_round_and_round(unmask: Unmask, trained: RunFolder) -> None:
    before: str | Path = trained.root
    for layout in ("fair", "huggingface", "unmask"):
        assert unmask("convert", before, layout, "--to", layout).status == 0
        before = layout
    file = tiny.newest(trained).folder / "model.safetensors"
    tiny.assert_same_tensors(load_file("unmask/model.safetensors"), load_file(file))


@pytest.mark.parametrize("part", ["encoder", "model"])
def test_from_a_file_of_a_checkpoint(unmask: Unmask, trained: RunFolder, part: str) -> None:
    file = tiny.newest(trained).folder / f"{part}.safetensors"
    said = unmask("convert", file, "new", "--to", "huggingface")
    assert said.status == 0
    config = json.loads(Path("new/config.json").read_text())
    assert config["model_type"] == {"encoder": "vit", "model": "vit_mae"}[part]


def test_mean_pooling_is_for_timm(unmask: Unmask, trained: RunFolder) -> None:
    assert unmask("convert", trained.root, "new", "--to", "timm", "--pool", "mean").status == 0
    assert "fc_norm.weight" in load_file("new/model.safetensors")
    said = unmask("convert", trained.root, "other", "--to", "fair", "--pool", "mean")
    assert said.status == 1
    assert said.err == "unmask: --pool is timm's, and --to fair has no classifier; leave it out"


def test_licence(unmask: Unmask, trained: RunFolder) -> None:
    unmask("convert", trained.root, "a.pth", "--to", "fair", "--license", "mit")
    assert "license: mit" in Path("a.md").read_text()
    said = unmask("convert", "a.pth", "b", "--to", "timm")
    assert "the authors' published weights are CC BY-NC 4.0; if these are they" in said.out
    assert "license: unknown" in Path("b/README.md").read_text()


def test_push(unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[tuple[Path, str]] = []

    def push(folder: Path, repo: str) -> str:
        pushed.append((folder, repo))
        return f"there/{repo}"

    monkeypatch.setattr(convert, "push", push)
    said = unmask("convert", trained.root, "new", "--to", "unmask", "--push", "me/mine")
    assert pushed == [(Path("new"), "me/mine")]
    assert "pushed there/me/mine" in said.out
    said = unmask("convert", trained.root, "x.pth", "--to", "fair", "--push", "me/mine")
    assert said.status == 1
    assert "--push is for a folder; name one instead of x.pth" in said.err
    assert not Path("x.pth").exists()


def test_a_difference_beyond_rounding_is_an_error(
    unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_TOLERANCE", -1.0)
    said = unmask("convert", trained.root, "new", "--to", "timm", "--push", "me/mine")
    assert said.status == 1
    assert "warning: that is more than rounding" in said.out
    assert "pushed" not in said.out


def test_heads_where_the_file_does_not_say(
    unmask: Unmask, trained: RunFolder, images: Path
) -> None:
    unmask("convert", trained.root, "a.pth", "--to", "fair")
    content = torch.load("a.pth", weights_only=True)
    torch.save({"model": content["model"]}, "bare.pth")
    said = unmask("convert", "bare.pth", "new", "--to", "unmask")
    assert said.status == 1
    assert "does not say how many attention heads it has at width 8" in said.err
    assert "--heads N" in said.err
    flags = ["--heads", "2", "--decoder-heads", "2"]
    assert unmask("convert", "bare.pth", "new", "--to", "unmask", *flags).status == 0
    assert package.load("new").spec.encoder.num_heads == 2
    said = unmask("convert", "bare.pth", "shown", "--to", "unmask", *flags, "--images", images)
    assert said.status == 0, said.err
    assert Path("shown/reconstructions.png").exists()


@pytest.mark.parametrize("destination", [".", "link"])
def test_into_the_current_folder_and_through_a_link(
    unmask: Unmask, trained: RunFolder, destination: str
) -> None:
    target = Path("target").absolute()
    target.mkdir()
    Path("link").symlink_to(target)
    number = target.stat().st_ino
    with contextlib.chdir(target if destination == "." else target.parent):
        said = unmask("convert", trained.root, destination, "--to", "huggingface")
        assert said.status == 0, said.err
        assert package.load(destination).spec.objective is not None
    assert (target.stat().st_ino, Path("link").is_symlink()) == (number, True)
    assert sorted(path.name for path in Path().iterdir()) == ["link", "target"]
    assert "# target" in (target / "README.md").read_text().splitlines()
    said = unmask("convert", trained.root, "link", "--to", "timm")
    assert said.err == "unmask: link exists and is not empty; give another folder"


class TestBadInput:
    """One message each; the fixture refuses tracebacks."""

    def test_nothing_there(self, unmask: Unmask, trained: RunFolder) -> None:
        wrong = trained.root.parent / "trainde"
        said = unmask("convert", wrong, "new", "--to", "timm")
        assert said.status == 1
        assert f"there is no file or folder {wrong} (did you mean {trained.root}?)" in said.err

    def test_run_without_a_checkpoint(self, unmask: Unmask, images: Path, tmp_path: Path) -> None:
        folder = tiny.begin(tmp_path / "begun", images)
        said = unmask("convert", folder.root, "new", "--to", "timm")
        assert "has no checkpoint to load: none is written yet" in said.err

    def test_half_downloaded(self, unmask: Unmask, trained: RunFolder) -> None:
        content = (tiny.newest(trained).folder / "model.safetensors").read_bytes()
        Path("half.safetensors").write_bytes(content[:-100])
        said = unmask("convert", "half.safetensors", "new", "--to", "timm")
        assert said.status == 1
        assert (
            "half.safetensors is damaged, incompletely downloaded, or not a weight file" in said.err
        )
        assert not Path("new").exists()

    def test_pickle(self, unmask: Unmask) -> None:
        torch.save({"model": {}, "args": argparse.Namespace()}, "x.pth")
        said = unmask("convert", "x.pth", "new", "--to", "timm")
        assert said.status == 1
        assert "x.pth is a pickle with more than tensors (argparse.Namespace)" in said.err

    def test_taken_destination(self, unmask: Unmask, trained: RunFolder) -> None:
        Path("new").mkdir()
        Path("new/notes.txt").touch()
        said = unmask("convert", trained.root, "new", "--to", "timm")
        assert said.err == "unmask: new exists and is not empty; give another folder"

    def test_unknown_layout(self, unmask: Unmask, trained: RunFolder) -> None:
        said = unmask("convert", trained.root, "new", "--to", "coreml")
        assert said.status != 0
        assert all(layout in said.all for layout in FORMATS)


def test_weights_go_into_the_other_commands(
    unmask: Unmask, trained: RunFolder, images: Path, classes: Path
) -> None:
    unmask("convert", trained.root, "new", "--to", "huggingface")
    said = unmask("reconstruct", "new", images / "00.png", "--out", "sheet.png")
    assert said.status == 0, said.err
    assert "no comparison" in said.out
    unmask("convert", trained.root, "encoder", "--to", "timm")
    said = unmask("reconstruct", "encoder", images / "00.png")
    assert said.status == 1
    assert "encoder is an encoder alone, so it cannot rebuild images" in said.err
