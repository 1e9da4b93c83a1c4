"""`unmask pretrain`: the plan, the run, going on, repeating, and leaving on a signal."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from commands.said import Unmask
from runs import tiny

from unmask.console.verbosity import VERBOSITY
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run


def test_prints_the_plan_and_what_to_do_next(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    said = unmask("pretrain", images, *recipe, "--out", "run")
    assert said.status == 0
    for words in (
        f"images 12 colour images in {images}, about 12 x 10 pixels",
        "warm-up cut from 0.5 to 0.1 epochs, a tenth of 1",
        "model 1 block of 8, patches of 2",
        "masking the encoder sees 4 of 16 patches of 8 pixels",
        "batch 4, learning rate up to 0.00469",  # 0.3 x 4 / 256
        "steps 3 (1 epoch)",
        "machine cpu, float32, 1 thread, 0 loading processes",
        "step 3 of 3, loss",
        f"unmask reconstruct run {images} --out sheet.png",
    ):
        assert words in said.out
    assert "measure it" not in said.out  # the images have no labels
    assert re.search(
        r"expected [\d.]+ (s|min) \([\d.]+ s a step\), [\d.]+ (MiB|GiB) of memory", said.out
    )
    assert said.out.index("expected") < said.out.index("step 3 of 3")
    assert len(Path("run/log.jsonl").read_text().splitlines()) == 3


def test_chooses_a_recipe_and_says_why(unmask: Unmask) -> None:
    flags = ["--epochs", "0.05", "--batch-size", "32", "--threads", "1", "--encoder.depth", "1"]
    flags += ["--objective.decoder.depth", "1"]
    said = unmask("pretrain", "digits", *flags)
    assert said.status == 0
    assert "recipe mae-digits, because images of about 8 x 8 pixels need patches of 2" in said.out
    assert "--recipe chooses another (`unmask help recipes` lists them)" in said.out
    assert "mae-b16" not in said.out
    assert "images 1,442 grey images in 10 classes (labels are not used for training)" in said.out
    assert Path("runs/mae-digits-digits/spec.json").exists()
    again = unmask("pretrain", "digits", *flags)
    assert again.status == 0
    assert Path("runs/mae-digits-digits-2/spec.json").exists()


def test_swaps_of_kinds_and_values_reach_the_spec(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    swaps = ["objective.masking:block", "--objective.masking.ratio", "0.4"]
    said = unmask(
        "pretrain", images, *recipe, "--seed", "7", "--image-size", "8x12", "--out", "run",
        "--optimizer.weight-decay", "0.2", *swaps, "objective.target:pixels",
    )  # fmt: skip
    assert said.status == 0
    spec = json.loads(Path("run/spec.json").read_text())
    assert spec["seed"] == 7
    assert spec["job"]["recipe"]["image_size"] == [8, 12]
    assert spec["job"]["recipe"]["optimizer"] == {
        "kind": "adamw", "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.2,
        "last_weight_decay": None, "clipping": {"kind": "none"},
    }  # fmt: skip
    masking = spec["job"]["recipe"]["objective"]["masking"]
    assert (masking["kind"], masking["ratio"]) == ("block", 0.4)
    assert spec["job"]["recipe"]["objective"]["target"] == {"kind": "pixels"}


def test_recipe_from_a_file(unmask: Unmask, images: Path) -> None:
    Path("mine.py").write_text("from runs.tiny import RECIPE as MINE\n")
    said = unmask("pretrain", images, "--recipe", "./mine.py:MINE", "--threads", "1")
    assert said.status == 0
    folder = RunFolder(Path("runs") / f"MINE-{images.name}")
    assert Run.read(folder, "pretrain").recipe_name == "./mine.py:MINE"
    assert Run.read(folder, "pretrain").recipe.batch_size == tiny.RECIPE.batch_size


def test_train_folder_alone_is_used(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    tiny.write_classes(tmp_path / "data" / "train")
    tiny.write_classes(tmp_path / "data" / "test", count=3)
    said = unmask("pretrain", tmp_path / "data", *recipe, "--out", "run")
    assert "images 20 colour images in 2 classes" in said.out
    assert "only the train folder is used; the test folder is kept for evaluation" in said.out


def test_in_parts_when_asked(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", images, *recipe, "--micro-batch", "3", "--out", "run")
    assert "batch 4 in 2 micro-batches of 3" in said.out


class TestResume:
    @pytest.fixture
    def stopped(self, images: Path, tmp_path: Path) -> RunFolder:
        """A run after two of six steps."""
        folder = tiny.begin(tmp_path / "stopped", images)
        tiny.one_step(folder)
        tiny.one_step(folder)
        return folder

    def test_goes_on_exactly(self, unmask: Unmask, stopped: RunFolder, trained: RunFolder) -> None:
        left = stopped.root / ".4711-log.jsonl"
        left.write_text("a process was killed while it wrote this")
        said = unmask("pretrain", "--resume", stopped.root)
        assert said.status == 0
        assert f"continuing {stopped.root} from step 2 of 6" in said.out
        assert not left.exists()
        tiny.assert_same_end(stopped, trained)

    def test_without_a_checkpoint_starts_at_0(
        self, unmask: Unmask, images: Path, tmp_path: Path, trained: RunFolder
    ) -> None:
        folder = tiny.begin(tmp_path / "begun", images)
        said = unmask("pretrain", "--resume", folder.root)
        assert said.status == 0
        assert "from step 0 of 6" in said.out
        tiny.assert_same_end(folder, trained)

    def test_of_a_finished_run_says_so(self, unmask: Unmask, trained: RunFolder) -> None:
        before = {path: path.stat().st_mtime_ns for path in trained.root.rglob("*")}
        said = unmask("pretrain", "--resume", trained.root)
        assert said.status == 0
        assert f"{trained.root} is finished: 6 of 6 steps are done" in said.out
        assert {path: path.stat().st_mtime_ns for path in trained.root.rglob("*")} == before

    def test_damaged_checkpoint_is_passed_over_and_named(
        self, unmask: Unmask, stopped: RunFolder, trained: RunFolder
    ) -> None:
        file = tiny.newest(stopped).folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        said = unmask("pretrain", "--resume", stopped.root)
        assert said.status == 0
        assert f"skipped a damaged checkpoint: {file.parent}: model.safetensors" in said.out
        assert "from step 1 of 6" in said.out
        tiny.assert_same_end(stopped, trained)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (
                ["--epochs", "9"],
                "--epochs cannot change; to train it longer, start from its weights: unmask",
            ),
            (
                ["--mask-ratio", "0.5", "--epochs", "9"],
                "--mask-ratio and --epochs cannot change; start",
            ),
            (["objective.masking:grid"], "objective.masking:grid cannot change"),
            (["--batch-size=8"], "--batch-size cannot change"),
            (["--seed", "3"], "--seed cannot change"),
            (["--recipe", "mae-b16"], "--recipe cannot change"),
            (["--out", "elsewhere"], "--out cannot change"),
            (["photos"], "photos does not exist; if the images are elsewhere now"),
        ],
    )
    def test_refuses_other_settings(
        self, unmask: Unmask, stopped: RunFolder, flags: list[str], words: str
    ) -> None:
        said = unmask("pretrain", "--resume", stopped.root, *flags)
        assert said.status == 1
        assert words in said.err.replace("--recipe-name", "--recipe")
        assert tiny.newest(stopped).info.step == 2

    def test_a_refused_flag_is_called_by_its_name(self, unmask: Unmask, stopped: RunFolder) -> None:
        said = unmask("pretrain", "--resume", stopped.root, "--recipe", "mae-b16")
        assert "--recipe-name" not in said.err

    def test_hardware_may_change(
        self, unmask: Unmask, stopped: RunFolder, trained: RunFolder
    ) -> None:
        said = unmask("pretrain", "--resume", stopped.root, "--workers", "1")
        assert said.status == 0
        assert "hardware settings differ" in said.out
        tiny.assert_same_end(stopped, trained)

    def test_changed_images_are_refused(self, unmask: Unmask, images: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(images, tmp_path / "copy")
        folder = tiny.begin(tmp_path / "run", copy)
        tiny.one_step(folder)
        (copy / "00.png").unlink()
        said = unmask("pretrain", "--resume", folder.root)
        assert said.status == 1
        assert "the images of this run have changed (12 then, 11 now" in said.err
        assert f"--like {folder.root} --out NEW" in said.err

    def test_lost_images_are_named(self, unmask: Unmask, images: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(images, tmp_path / "copy")
        folder = tiny.begin(tmp_path / "run", copy)
        shutil.rmtree(copy)
        said = unmask("pretrain", "--resume", folder.root)
        assert said.status == 1
        assert f"{copy} does not exist" in said.err


class TestLike:
    def test_repeats_the_settings_on_other_images(
        self, unmask: Unmask, trained: RunFolder, classes: Path
    ) -> None:
        said = unmask("pretrain", classes, "--like", trained.root, "--out", "new")
        assert said.status == 0
        old, new = Run.read(trained, "pretrain"), Run.read(RunFolder("new"), "pretrain")
        assert (new.recipe.encoder, new.recipe.objective) == (
            old.recipe.encoder,
            old.recipe.objective,
        )
        assert (new.recipe.batch_size, new.recipe.epochs) == (4, 2)
        assert (new.seed, new.hardware, new.images) == (old.seed, old.hardware, 20)

    def test_repeats_a_run_to_the_bit(
        self, unmask: Unmask, trained: RunFolder, images: Path
    ) -> None:
        unmask("pretrain", images, "--like", trained.root, "--out", "new")
        assert Run.read(RunFolder("new"), "pretrain").recipe == Run.read(trained, "pretrain").recipe
        tiny.assert_same_end(RunFolder("new"), trained)

    def test_pixels_of_other_values_are_measured(
        self, unmask: Unmask, trained: RunFolder, tmp_path: Path
    ) -> None:
        """Statistics of bytes, counted as 0 to 1, are of no use for numbers in the data's own units."""
        scenes = tmp_path / "scenes"
        scenes.mkdir()
        for number in range(4):
            values = np.random.default_rng(number).normal(500, 30, (3, 12, 10))
            np.save(scenes / f"{number}.npy", values.astype(np.float32))
        said = unmask("pretrain", scenes, "--like", trained.root, "--out", "new")
        assert said.status == 0, said.err
        statistics = Run.read(RunFolder("new"), "pretrain").statistics
        assert (statistics.values, statistics.mean[0]) == ("float32", pytest.approx(500, abs=5))

    def test_with_a_change(self, unmask: Unmask, trained: RunFolder, images: Path) -> None:
        unmask("pretrain", images, "--like", trained.root, "--seed", "5", "--out", "new")
        assert Run.read(RunFolder("new"), "pretrain").seed == 5
        assert tiny.timeless(RunFolder("new")) != tiny.timeless(trained)

    def test_beside_recipe_is_refused(
        self, unmask: Unmask, trained: RunFolder, images: Path
    ) -> None:
        said = unmask(
            "pretrain", images, "--like", trained.root, "--recipe", "mae-digits", "--out", "new"
        )
        assert said.status == 1


class Stopped(NamedTuple):
    """A run that a signal ended, the exit status, and all that it said."""

    folder: RunFolder
    status: int
    lines: list[str]


SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(scope="module")
def signalled(
    images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[signal.Signals, Stopped]]:
    """Real runs, of which all processes are sent a signal after the first checkpoint; both at the same time."""
    root = tmp_path_factory.mktemp("signals")
    recipe = root / "long.py"
    recipe.write_text(
        "from dataclasses import replace\nfrom runs.tiny import RECIPE\n"
        "LONG = replace(RECIPE, epochs=80.0, schedule=replace(RECIPE.schedule, warmup_epochs=1.0))\n"
    )
    words = ["--recipe", f"{recipe}:LONG", "--threads", "1", "--workers", "1"]
    words += ["--save-every-minutes", "0"]
    tests = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    running = {}
    for number in SIGNALS:
        command = [sys.executable, "-m", "unmask", "pretrain", images, *words]
        running[number] = subprocess.Popen(
            [*command, "--out", root / number.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
    ended = {}
    for number, process in running.items():
        folder = RunFolder(root / number.name)
        while process.poll() is None and folder.newest()[0] is None:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        said, _ = process.communicate(timeout=60)
        ended[number] = Stopped(folder, process.returncode, said.splitlines())
    yield ended
    for process in running.values():
        if process.poll() is None:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_saves_and_leaves_with_the_command_to_go_on(
    signalled: dict[signal.Signals, Stopped], number: signal.Signals
) -> None:
    folder, status, lines = signalled[number]
    assert status == 128 + number, lines
    assert lines[-1] == f"unmask pretrain --resume {folder.root}"
    assert not any("Traceback" in line for line in lines)
    step = tiny.newest(folder).info.step
    assert 0 < step < Run.read(folder, "pretrain").steps
    assert tiny.timeless(folder)[-1]["step"] == step


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_going_on_after_a_signal_ends_alike(
    signalled: dict[signal.Signals, Stopped], number: signal.Signals, unmask: Unmask
) -> None:
    folder, _, lines = signalled[number]
    command = [*lines[-1].split()[1:], "--save-every-minutes", "10", "--workers", "0"]
    assert unmask(*command).status == 0
    whole = RunFolder(folder.root.parent / "whole")
    if not whole.root.exists():
        whole.create(Run.read(folder, "pretrain"))
        tiny.finish(whole, workers=0)
    tiny.assert_same_end(folder, whole)


def test_resume_without_a_run(unmask: Unmask) -> None:
    said = unmask("pretrain", "--resume")
    assert said.status == 1
    assert "--resume needs a value: --resume RUN" in said.err


class TestInit:
    def test_from_a_run_takes_all_that_fits(
        self, unmask: Unmask, images: Path, trained: RunFolder, recipe: list[str]
    ) -> None:
        said = unmask("pretrain", images, *recipe, "--init", trained.root, "--out", "new")
        assert said.status == 0, said.err
        assert "recipe tiny, step 6; encoder and decoder" in said.out
        run = Run.read(RunFolder("new"), "pretrain")
        assert run.init is not None
        assert "encoder and decoder" in run.init
        assert "started from (pretrained by unmask" in run.model.origin

    def test_step_0_is_saved_so_the_folder_suffices_to_go_on(
        self, unmask: Unmask, images: Path, trained: RunFolder, tmp_path: Path, recipe: list[str]
    ) -> None:
        weights = shutil.copytree(trained.root, tmp_path / "weights")
        flags = [*recipe, "--init", weights]
        unmask("pretrain", images, *flags, "--out", "whole")
        begun = tiny.begin_from(Path("begun"), images, weights)
        first = tiny.newest(begun)
        assert first.info.step == 0
        tiny.assert_same_tensors(first.read("model"), tiny.newest(trained).read("model"))
        shutil.rmtree(weights)
        assert unmask("pretrain", "--resume", "begun").status == 0
        assert tiny.timeless(begun)[0]["loss"] == tiny.timeless(RunFolder("whole"))[0]["loss"]

    def test_without_a_recipe_takes_that_of_the_weights(
        self, unmask: Unmask, images: Path, trained: RunFolder
    ) -> None:
        flags = ["--epochs", "1", "--batch-size", "4", "--threads", "1", "--workers", "0"]
        said = unmask("pretrain", images, "--init", trained.root, *flags, "--out", "new")
        assert said.status == 0, said.err
        assert "recipe mae-ti4, because no recipe has the encoder of the weights" in said.out
        run, old = Run.read(RunFolder("new"), "pretrain"), Run.read(trained, "pretrain")
        assert run.recipe.encoder == old.recipe.encoder
        assert run.recipe.objective.decoder == old.recipe.objective.decoder
        assert run.recipe.image_size == old.recipe.image_size

    @pytest.mark.parametrize("layout", ["fair", "timm", "huggingface", "unmask"])
    def test_from_every_layout(
        self, unmask: Unmask, images: Path, trained: RunFolder, recipe: list[str], layout: str
    ) -> None:
        unmask("convert", trained.root, "weights", "--to", layout)
        said = unmask("pretrain", images, *recipe, "--init", "weights", "--out", "new")
        assert said.status == 0, said.err
        what = "an encoder without a decoder" if layout == "timm" else "encoder and decoder"
        assert what in said.out
        assert (
            Run.read(RunFolder("new"), "pretrain").statistics
            == Run.read(trained, "pretrain").statistics
        )

    def test_other_decoder_stays_drawn(
        self, unmask: Unmask, images: Path, trained: RunFolder, recipe: list[str]
    ) -> None:
        flags = [*recipe, "--init", trained.root, "--objective.decoder.depth", "2"]
        said = unmask("pretrain", images, *flags, "--out", "new")
        assert said.status == 0, said.err
        assert "only the encoder, because the recipe has another decoder" in said.out

    def test_other_size_and_channels(
        self, unmask: Unmask, trained: RunFolder, tmp_path: Path, recipe: list[str]
    ) -> None:
        grey = tiny.write_images(tmp_path / "grey", channels=1)
        flags = [*recipe, "--init", trained.root, "--image-size", "8x12"]
        said = unmask("pretrain", grey, *flags, "--out", "new")
        assert said.status == 0, said.err
        assert "positions resampled from 4 x 4 to 4 x 6" in said.out
        assert "patch projection adapted from 3 to 1 channels" in said.out
        assert Run.read(RunFolder("new"), "pretrain").statistics.source.startswith("measured")

    def test_statistics_may_be_measured(
        self, unmask: Unmask, images: Path, trained: RunFolder, recipe: list[str]
    ) -> None:
        flags = [*recipe, "--init", trained.root, "--statistics", "measure"]
        assert unmask("pretrain", images, *flags, "--out", "new").status == 0
        assert Run.read(RunFolder("new"), "pretrain").statistics.source.startswith("measured")

    def test_recipe_of_another_encoder_is_refused_with_both_shapes(
        self, unmask: Unmask, images: Path, trained: RunFolder
    ) -> None:
        flags = ["--recipe", "mae-ti16", "--init", trained.root]
        said = unmask("pretrain", images, *flags, "--threads", "1", "--out", "new")
        assert said.status == 1
        assert "has 1 block of 8 with 2 heads, MLPs of 32 and patches of 2" in said.err
        assert "wants 12 blocks of 192 with 3 heads, MLPs of 768 and patches of 16" in said.err
        assert not Path("new").exists()

    def test_weights_that_are_not_there(
        self, unmask: Unmask, images: Path, recipe: list[str]
    ) -> None:
        said = unmask("pretrain", images, *recipe, "--init", "gone.pth", "--out", "new")
        assert said.status == 1
        assert "--init: there is no file or folder gone.pth; weights are a run, or" in said.err

    def test_cannot_change_when_going_on(
        self, unmask: Unmask, images: Path, trained: RunFolder, tmp_path: Path
    ) -> None:
        folder = tiny.begin(tmp_path / "begun", images)
        said = unmask("pretrain", "--resume", folder.root, "--init", trained.root)
        assert said.status == 1
        assert "--init cannot change" in said.err

    def test_going_on_never_starts_from_random_weights_instead(
        self, unmask: Unmask, images: Path, trained: RunFolder
    ) -> None:
        folder = tiny.begin_from(Path("begun"), images, trained.root)
        shutil.rmtree(folder.checkpoints)
        said = unmask("pretrain", "--resume", folder.root)
        assert said.status == 1
        assert "stopped before its initial weights were saved" in said.err

    def test_repeating_a_run_says_that_it_started_from_weights(
        self, unmask: Unmask, images: Path, trained: RunFolder
    ) -> None:
        folder = tiny.begin_from(Path("begun"), images, trained.root)
        said = unmask("pretrain", images, "--like", folder.root, "--out", "new")
        assert said.status == 0, said.err
        assert "random weights unless you give --init" in said.out
        assert Run.read(RunFolder("new"), "pretrain").init is None


def test_float16_scales_the_loss(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", images, *recipe, "--precision", "float16", "--out", "half")
    assert said.status == 0, said.err
    assert "cpu, float16 with a scaled loss, 1 thread" in said.out
    folder = RunFolder("half")
    assert [line["loss_scale"] > 1 for line in tiny.timeless(folder)] == [True] * 3
    assert "training/loss_scale" in tiny.newest(folder).info.checksums
    assert unmask("pretrain", "--resume", "half").status == 0
    assert unmask("convert", "half", "exported", "--to", "timm").status == 0


def test_evaluation_is_offered_only_where_it_works(
    unmask: Unmask, images: Path, classes: Path, recipe: list[str]
) -> None:
    singles = Path("singles")
    for name in ("a", "b", "c"):
        tiny.write_images(singles / name, 1)
    words = {
        data: unmask(
            "pretrain", data, *recipe, "--batch-size", "2", "--out", f"run-{data.name}"
        ).out
        for data in (images, singles, classes)
    }
    assert ["measure it: unmask evaluate" in said for said in words.values()] == [
        False,
        False,
        True,
    ]
    assert f"look at it: unmask reconstruct run-singles {singles.absolute()}" in words[singles]


def test_a_batch_larger_than_the_images_is_warned_about(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    said = unmask("pretrain", images, *recipe, "--batch-size", "30", "--out", "run")
    assert (
        "warning: a batch of 30 is 2.5 times your 12 images, so every step sees each image several times; "
        "--batch-size 12 would suit them"
    ) in said.out
    assert said.out.index("warning: a batch") < said.out.index("measuring the cost of a step")
    assert "warning:" not in unmask("pretrain", images, *recipe, "--out", "other").out


def test_a_run_of_days_is_warned_about(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a step that seems to take two days, so that three steps take six
    monkeypatch.setattr("unmask.runs.plan.seconds_of_step", lambda *_: 2 * 86_400.0)
    said = unmask("pretrain", images, *recipe, "--out", "run")
    assert said.out.count("warning:") == 1
    assert (
        "warning: this run takes about 6.0 days here; it can be stopped with Ctrl-C and continued with --resume; "
        "fewer --epochs, a smaller recipe or a GPU make it shorter"
    ) in said.out
    assert "expected 6.0 days" in said.out
    assert (
        f"a shorter way, with a recipe made for the time: unmask pretrain {images} --minutes 30"
        in said.out
    )
    assert said.out.index("warning: this run") < said.out.index("step 3 of 3")


def test_quiet_and_verbose(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VERBOSITY, "quiet")
    assert unmask("pretrain", images, *recipe, "--out", "quiet").all.strip() == ""
    monkeypatch.setenv(VERBOSITY, "normal")
    normal = unmask("pretrain", images, *recipe, "--out", "normal").out
    monkeypatch.setenv(VERBOSITY, "verbose")
    verbose = unmask("pretrain", images, *recipe, "--out", "verbose").out
    assert ["% of peak)" in said for said in (normal, verbose)] == [False, True]
    assert ["step 3 of 3, loss" in said for said in (normal, verbose)] == [True, True]
