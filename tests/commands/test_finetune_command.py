"""`unmask finetune`: the plan, the run, going on, and what it refuses."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from commands.said import Unmask
from rules.test_surface import top_level_flags
from runs import tiny, tiny_transfer

from unmask.commands import finetune
from unmask.console import train
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.tasks.heads import ClassTokenHead

FLAGS = {
    "--recipe",
    "--trained-blocks",
    "--patch-keep",
    "--out",
    "--resume",
    "--data-kind",
    "--labels-file",
    "--epochs",
    "--batch-size",
    "--image-size",
    "--seed",
    "--workers",
    "--threads",
    "--device",
    "--precision",
    "--micro-batch",
    "--shard",
    "--decode",
    "--save-every-minutes",
    "--max-set-aside",
    "--lr",
    "--task",
    "--ignore",
    "--labels",
    "--seeds",
    "--model",
    "--patch-size",
    "--no-report",
    "--track",
}

RECIPE = ["--recipe", f"{tiny_transfer.__file__}:TRANSFER", "--threads", "1", "--workers", "0"]


def test_promised_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        finetune.main(["--help-all"])
    assert ended.value.code == 0
    assert top_level_flags(capsys.readouterr().out) == FLAGS


def test_prints_the_plan_and_the_score(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    said = unmask("finetune", trained.root, classes, *RECIPE, "--out", "run")
    assert said.status == 0, said.err
    for words in (
        "images 16 images of 2 classes for training, 4 for testing (20% of each class for testing, drawn from seed 0)",
        "weights pretrained by unmask",
        "recipe tiny, step 6",
        "model 1 block of 8, patches of 2, 8 pixels; trained: all",
        "batch 4, learning rate up to 0.00469",
        "steps 6 (1.5 epochs)",
        "patches 50% at first, 100% at the end shown; the expected time assumes all",
        "step 6 of 6, loss",
        "test top-1",
        "on 4 images (chance 50.00%, largest class",
        f"unmask predict run {classes}",
    ):
        assert words in said.out
    results = json.loads(Path("run/results.json").read_text())
    assert "mean of classes 4 " in said.out
    lines = Path("run/classes.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "class,images,precision,recall,F1"
    assert [line.split(",")[:2] for line in lines[1:]] == [["cats", "2"], ["dogs", "2"]]
    assert Path("run/confusion.png").exists()
    assert Path("run/mistakes.png").exists() == (results["top1"] < 1)
    assert results["images"] == 4
    assert results["chance"] == 0.5
    assert 0 <= results["top1"] <= 1
    again = unmask("finetune", "--resume", "run")
    assert again.status == 0
    assert "run is finished: 6 of 6 steps are done" in again.out


def test_from_scratch_in_part_and_without_a_recipe(unmask: Unmask) -> None:
    words = ("finetune", "scratch", "digits", "--epochs", "0.1", "--threads", "1")
    said = unmask(*words, "--encoder.depth", "1", "--out", "run")
    assert said.status == 0, said.err
    assert "recipe finetune-digits, for images of about 8 x 8 pixels" in said.out
    assert "warm-up cut from 3 to 0.01 epochs" in said.out
    assert "top-5" in said.out


@pytest.mark.parametrize(("blocks", "learning"), [("0", "0.00"), ("half", "0.00"), ("1", "0.00")])
def test_trained_blocks(
    unmask: Unmask, trained: RunFolder, classes: Path, blocks: str, learning: str
) -> None:
    flags = [*RECIPE, "--trained-blocks", blocks, "--out", "run"]
    said = unmask("finetune", trained.root, classes, *flags)
    assert said.status == 0, said.err
    assert f"trained: {blocks} ({learning} M" in said.out
    assert Run.read(RunFolder("run"), "finetune").recipe.task.trained_blocks == blocks


@pytest.mark.parametrize("blocks", ["all", pytest.param("0", marks=pytest.mark.slow)])
def test_class_token_head(unmask: Unmask, trained: RunFolder, classes: Path, blocks: str) -> None:
    flags = [*RECIPE, "task.head:class-token", "--trained-blocks", blocks, "--out", "run"]
    said = unmask("finetune", trained.root, classes, *flags)
    assert said.status == 0, said.err
    run = Run.read(RunFolder("run"), "finetune")
    assert run.recipe.task.head == ClassTokenHead()
    weights = tiny.newest(RunFolder("run")).read("model")
    heads = {name for name in weights if name.startswith("head.")}
    assert heads == {"head.linear.weight", "head.linear.bias"}
    predicted = unmask("predict", "run", classes, "--json")
    assert predicted.status == 0, predicted.err
    assert len(json.loads(predicted.raw)["images"]) == 20


def test_flags_for_another_encoder_are_refused(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    said = unmask("finetune", trained.root, classes, *RECIPE, "--encoder.depth", "2")
    assert said.status == 1
    assert "the encoder has 1 block of 8 with 2 heads" in said.err
    assert "but the settings ask for 2 blocks of 8 with 2 heads" in said.err
    assert "leave out --model, --patch-size and the flags that begin with --encoder" in said.err


def test_small_data_get_a_smaller_batch_and_it_says_so(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    flags = ["--epochs", "1", "--threads", "1", "--workers", "0"]
    said = unmask("finetune", trained.root, classes, *flags, "--out", "run")
    assert said.status == 0, said.err
    assert "recipe finetune-digits, with the encoder of the weights (1 block of 8" in said.out
    assert "batch cut from 64 to 16 because there are 16 images" in said.out


def test_a_signal_saves_and_going_on_ends_as_in_one_go(
    unmask: Unmask, trained: RunFolder, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("finetune", trained.root, classes, *RECIPE)
    assert unmask(*words, "--out", "whole").status == 0
    real = train.training

    def interrupted(*args: object):
        for report in real(*args):  # pyright: ignore
            if report.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield report

    monkeypatch.setattr(train, "training", interrupted)
    said = unmask(*words, "--out", "halves")
    assert said.status == 128 + signal.SIGTERM
    assert "stopped and saved; continue with: unmask finetune --resume halves" in said.out
    monkeypatch.setattr(train, "training", real)
    assert tiny.newest(RunFolder("halves")).info.step == 3
    said = unmask("finetune", "--resume", "halves")
    assert said.status == 0, said.err
    assert "continuing halves from step 3 of 6" in said.out
    tiny.assert_same_end(RunFolder("halves"), RunFolder("whole"))
    for name in ("halves", "whole"):
        assert json.loads(Path(name, "results.json").read_text())["images"] == 4
    one, other = (json.loads(Path(n, "results.json").read_text()) for n in ("halves", "whole"))
    assert one["top1"] == other["top1"]


def test_resuming_refuses_changes(unmask: Unmask, classes: Path, tmp_path: Path) -> None:
    folder = tiny_transfer.begin(tmp_path / "run", classes)
    tiny_transfer.one_step(folder)
    for flags, words in (
        (["--seed", "3"], "--seed cannot change"),
        (
            ["--epochs", "3"],
            "--epochs cannot change; to train it longer, fine-tune its encoder again",
        ),
        (["--trained-blocks", "0"], "--trained-blocks cannot change"),
    ):
        said = unmask("finetune", "--resume", folder.root, *flags)
        assert said.status == 1
        assert words in said.err
    said = unmask("finetune", "--resume")
    assert "--resume needs a value: --resume RUN" in said.err


def test_resuming_with_other_images(unmask: Unmask, classes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(classes, tmp_path / "data")
    folder = tiny_transfer.begin(tmp_path / "run", data)
    tiny_transfer.one_step(folder)
    (data / "cats" / "00.png").unlink()
    said = unmask("finetune", "--resume", folder.root)
    assert said.status == 1
    assert "the images of this run have changed (16 then, 15 now" in said.err


def test_weights_that_were_never_saved(unmask: Unmask, classes: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_transfer.make_transfer(classes, init="somewhere"))
    said = unmask("finetune", "--resume", folder.root)
    assert said.status == 1
    assert "was stopped before its initial weights were saved (somewhere)" in said.err


def test_missing_words(unmask: Unmask, trained: RunFolder) -> None:
    for words, answer in (
        ((), "which encoder, and which images?"),
        ((trained.root,), f"which images? `unmask finetune {trained.root} FOLDER`"),
        (("scratch",), "which images? `unmask finetune scratch FOLDER`"),
    ):
        said = unmask("finetune", *words)
        assert said.status == 1
        assert answer in said.err


def test_images_without_labels(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    said = unmask("finetune", trained.root, images)
    assert said.status == 1
    assert "put each class in its own folder" in said.err


def test_one_class_alone(unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes / "cats", tmp_path / "data" / "cats")
    said = unmask("finetune", trained.root, tmp_path / "data")
    assert said.status == 1
    assert "at least two classes" in said.err


def test_class_folders_that_differ(
    unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        shutil.copytree(classes, tmp_path / "data" / split)
    shutil.rmtree(tmp_path / "data" / "val" / "dogs")
    (tmp_path / "data" / "val" / "emus").mkdir()
    shutil.copy(classes / "dogs" / "00.png", tmp_path / "data" / "val" / "emus")
    said = unmask("finetune", trained.root, tmp_path / "data")
    assert said.status == 1
    assert "val has emus, of which" in said.err


def test_more_blocks_than_there_are(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    said = unmask("finetune", trained.root, classes, *RECIPE, "--trained-blocks", "2")
    assert said.status == 1
    assert "cannot train 2 blocks of an encoder with 1" in said.err


def test_a_recipe_of_another_architecture(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    said = unmask("finetune", trained.root, classes, "--recipe", "finetune-b16")
    assert said.status == 1
    assert "the encoder has 1 block of 8" in said.err
    assert "leave out --recipe" in said.err


def test_nothing_there(unmask: Unmask, classes: Path) -> None:
    said = unmask("finetune", "runs/typo", classes)
    assert said.status == 1
    assert "there is no file or folder runs/typo" in said.err
    said = unmask("finetune", "scratch", classes, "--recipe", "scrach-b16")
    assert "did you mean 'scratch-b16'?" in said.err
