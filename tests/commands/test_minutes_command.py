"""`unmask pretrain --minutes`: what is chosen and said, and that it ends."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands.said import Unmask
from runs import tiny

from unmask import pretrain
from unmask.console.hardware import MachineFlags, RunFlags
from unmask.contracts import Size
from unmask.recipes.by_time import BATCH, LEAST_STEPS, encoders_for
from unmask.runs.course import ENDS
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.logbook import read_log

FLAGS = ["--threads", "1", "--workers", "0", "--out", "run"]


def test_a_recipe_of_one_s_own_gets_as_many_epochs_as_fit(unmask: Unmask, images: Path) -> None:
    said = unmask(
        "pretrain", images, "--recipe", f"{tiny.__file__}:RECIPE", "--minutes", "0.15", *FLAGS
    )
    assert said.status == 0
    run, folder = Run.read(RunFolder("run"), "pretrain"), RunFolder("run")
    assert run.minutes == 0.15
    assert replace(run.recipe, epochs=2.0, schedule=tiny.RECIPE.schedule) == tiny.RECIPE
    lines = read_log(folder.log)
    decided = [line for line in lines if ENDS in line]
    assert decided
    assert tiny.newest(folder).info.step == len(lines) == decided[-1][ENDS]
    again = unmask("pretrain", "--resume", "run")
    assert f"run is finished: {len(lines):,} of {len(lines):,} steps are done" in again.out
    assert f"0.15 minutes, {len(lines):,} steps of 4 images" in folder.report.read_text()
    assert f"images in batches of 4, {len(lines):,} steps in all" in unmask("doctor", "run").out


@pytest.mark.slow
def test_an_encoder_is_chosen_for_the_time_and_explained(unmask: Unmask, images: Path) -> None:
    said = unmask("pretrain", images, "--minutes", "0.5", *FLAGS)
    assert said.status == 0
    for words in (
        "time 30 s; measuring which encoder suits it ...",
        f"the largest encoder is taken that gets {LEAST_STEPS:,} steps, or else the smallest",
        "since a short run lacks steps rather than images",
        "a run of the recipe mae-digits would take",
        "--recipe NAME with --minutes keeps that recipe's settings",
    ):
        assert words in said.out
    run = Run.read(RunFolder("run"), "pretrain")
    assert run.recipe_name == "by-time"
    assert run.recipe.encoder in encoders_for(Size(8, 8))
    assert run.recipe.batch_size <= BATCH
    assert run.recipe.schedule.cooldown is not None
    lines = read_log(RunFolder("run").log)
    assert lines[-1]["learning_rate"] < 0.1 * max(line["learning_rate"] for line in lines)


@pytest.mark.slow
def test_from_python(images: Path, tmp_path: Path) -> None:
    running = RunFlags(machine=MachineFlags(threads=1, workers=0))
    root = pretrain(images, minutes=0.4, out=tmp_path / "run", running=running)
    assert Run.read(RunFolder(root), "pretrain").minutes == 0.4
    assert json.loads((root / "spec.json").read_text())["minutes"] == 0.4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--minutes", "5", "--hours", "1"], "--minutes and --hours both say how long the run is; leave one out"),
        (["--hours", "1", "--epochs", "3"], "--hours and --epochs both say how long the run is; leave one out"),
        (["--minutes", "soon"], "--minutes must be a number, got 'soon'"),
        (["--minutes", "0"], "--minutes must be above 0, got 0"),
        (["--hours", "inf"], "--hours must be a finite number, got inf"),
    ],
)  # fmt: skip
def test_times_that_make_no_sense(
    unmask: Unmask, images: Path, flags: list[str], said: str
) -> None:
    found = unmask("pretrain", images, *FLAGS, *flags)
    assert (found.status, found.err) == (1, f"unmask: {said}")
    assert not Path("run").exists()


def test_a_time_in_which_hardly_a_step_fits_is_refused(unmask: Unmask, images: Path) -> None:
    found = unmask(
        "pretrain", images, "--recipe", f"{tiny.__file__}:RECIPE", "--minutes", "0.02", *FLAGS
    )
    assert found.status == 1
    assert "are too short for this recipe: " in found.err
    assert ", or a smaller --recipe" in found.err
    assert "give it at least --minutes " in found.err
    assert not Path("run").exists()


def test_a_time_that_is_over_before_a_recipe_is_chosen_is_refused(
    unmask: Unmask, images: Path
) -> None:
    found = unmask("pretrain", images, "--minutes", "0.0001", *FLAGS)
    assert found.status == 1
    assert "are too short even for the smallest encoder: " in found.err
    assert "get about" not in found.out
    assert "give it at least --minutes 0." in found.err
    assert not Path("run").exists()


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A recipe with batches of 256 images."""
    file = tmp_path / "large.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from unmask.recipes import find_recipe\n"
        "from unmask.training.schedules import WarmupCosine\n"
        "RATE = WarmupCosine(base_lr=3e-3, warmup_epochs=12)\n"
        "LARGE = replace(find_recipe('mae-digits'), batch_size=256, epochs=120.0, schedule=RATE)\n"
    )
    return f"{file}:LARGE"


def test_few_epochs_get_more_steps_by_a_smaller_batch(unmask: Unmask, large: str) -> None:
    found = unmask("pretrain", "digits", "--recipe", large, "--epochs", "0.5", *FLAGS)
    assert found.status == 0
    assert (
        "batch cut from 256 to 64, and the highest learning rate from 0.003 to 0.001, because 0.5 epochs of 1,442 images "
        "would be 3 steps; --batch-size sets it"
    ) in found.out
    run = Run.read(RunFolder("run"), "pretrain")
    assert (run.recipe.batch_size, run.steps) == (64, 11)
    assert (
        "batch cut"
        not in unmask("pretrain", "digits", "--like", "run", "--out", "like", *FLAGS[:4]).out
    )


def test_a_batch_that_is_asked_for_stays(unmask: Unmask, large: str) -> None:
    words = ["pretrain", "digits", "--recipe", large, "--epochs", "0.5", *FLAGS]
    found = unmask(*words, "--batch-size", "128")
    assert "batch cut" not in found.out
    assert Run.read(RunFolder("run"), "pretrain").recipe.batch_size == 128
