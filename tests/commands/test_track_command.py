"""`--track` and `unmask report --send`: trackers get the lines of the log, and can never stop a run."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from commands.pages import words_of
from commands.said import Unmask
from runs import tiny

from unmask.report import trackers
from unmask.report.sinks import Place
from unmask.report.trackers import TRACKERS, Trackers
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.logbook import read_log


class Fake:
    """A tracker that remembers."""

    opened: list["Fake"] = []  # noqa: RUF012

    def __init__(self, place: Place) -> None:
        self.place, self.closed = place, False
        self.lines: dict[int, dict[str, float]] = {}
        Fake.opened.append(self)

    def log(self, step: int, fields: dict[str, float]) -> None:
        assert not self.closed
        self.lines.setdefault(step, {}).update(fields)

    def close(self) -> str:
        self.closed = True
        return self.place.identifier or f"number {len(Fake.opened)}"


class Broken(Fake):
    """A tracker that fails at its second line."""

    def log(self, step: int, fields: dict[str, float]) -> None:
        if self.lines:
            raise ConnectionError("no net\nat all")
        super().log(step, fields)


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All four trackers are there, and none does anything."""
    Fake.opened = []
    for name in TRACKERS:
        monkeypatch.setitem(TRACKERS, name, TRACKERS[name]._replace(module="json", open=Fake))


def logged(folder: str) -> dict[int, dict[str, float]]:
    lines = read_log(RunFolder(folder).log)
    return {int(line.pop("step")): line for line in lines}


def test_all_trackers_get_the_lines_of_the_log(
    unmask: Unmask, images: Path, recipe: list[str]
) -> None:
    said = unmask("pretrain", images, *recipe, "--out", "run", "--track", ",".join(TRACKERS))
    assert said.status == 0, said.err
    assert len(Fake.opened) == len(TRACKERS) == 4
    lines = logged("run")
    for fake in Fake.opened:
        assert fake.closed
        assert fake.lines[3] == lines[3]  # the last step of a batch of lines is always sent
        assert fake.lines.items() <= lines.items()
        assert fake.place.root == Path("run").absolute()
        assert fake.place.settings["objective.masking.ratio"] == "0.75"


def test_a_tracker_that_fails_is_turned_off_and_training_goes_on(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.runs.training._WRITE_SECONDS", 0.0)
    monkeypatch.setitem(TRACKERS, "wandb", TRACKERS["wandb"]._replace(open=Broken))
    said = unmask("pretrain", images, *recipe, "--out", "run", "--track", "wandb,mlflow", "-q")
    assert said.status == 0
    assert (
        said.err.count(
            "warning: the tracker wandb failed (no net) and is off; log.jsonl has everything"
        )
        == 1
    )
    broken, whole = Fake.opened
    assert list(broken.lines) == [1]
    assert whole.lines == logged("run")
    tiny.newest(RunFolder("run"))


def test_one_that_cannot_be_opened_is_off_from_the_start(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(place: Place) -> Any:
        raise PermissionError("no key")

    monkeypatch.setitem(TRACKERS, "wandb", TRACKERS["wandb"]._replace(open=refuses))
    said = unmask("pretrain", images, *recipe, "--out", "run", "--track", "wandb")
    assert said.status == 0
    assert "the tracker wandb failed (no key) and is off" in said.err


def test_tracking_changes_nothing(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    assert unmask("pretrain", images, *recipe, "--out", "a", "--track", "mlflow").status == 0
    assert unmask("pretrain", images, *recipe, "--out", "b").status == 0
    tiny.assert_same_end(RunFolder("a"), RunFolder("b"))


def test_a_resumed_run_continues_the_run_of_the_tracker(unmask: Unmask, images: Path) -> None:
    folder = tiny.begin(Path("run"), images)
    run = Run.read(folder)
    first = Trackers(("mlflow",), run, folder, 0, print)
    first.log([{"step": 1, "loss": 2.0}])
    first.close()
    assert json.loads(folder.tracked.read_text()) == {"mlflow": "number 1"}
    tiny.one_step(folder)
    said = unmask("pretrain", "--resume", "run", "--track", "mlflow")
    assert said.status == 0, said.err
    assert (Fake.opened[1].place.identifier, Fake.opened[1].place.first_step) == ("number 1", 1)
    assert min(Fake.opened[1].lines) > 1


def test_finetune_and_tokenizer_track_too(unmask: Unmask, classes: Path, images: Path) -> None:
    from runs import tiny_transfer

    flags = ["--threads", "1", "--workers", "0", "--track", "mlflow"]
    recipe = f"{tiny_transfer.__file__}:TRANSFER"
    assert (
        unmask("finetune", "scratch", classes, "--recipe", recipe, *flags, "--out", "f").status == 0
    )
    lines, results = logged("f"), json.loads(Path("f/results.json").read_text())
    last = lines[max(lines)]
    last |= {"test/top-1": results["top1"], "test/balanced accuracy": results["balanced"]}
    assert Fake.opened[0].lines.items() <= lines.items()
    assert f"Score: top-1 {results['top1']:.1%}" in words_of(Path("f/report.html").read_text())
    tokenizing = f"{tiny.__file__}:TOKENIZING"
    assert unmask("tokenizer", images, "--recipe", tokenizing, *flags, "--out", "t").status == 0
    psnr = json.loads(Path("t/results.json").read_text())["tokenizer"]["psnr"]
    assert Fake.opened[1].lines[max(logged("t"))]["test/PSNR"] == psnr
    assert f"Score: PSNR {psnr:.2f} dB" in words_of(Path("t/report.html").read_text())
    assert Path("t/report.html").exists()


def test_a_missing_package_is_said_before_training(
    unmask: Unmask,
    trained: RunFolder,
    images: Path,
    recipe: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in TRACKERS:
        monkeypatch.setitem(TRACKERS, name, TRACKERS[name]._replace(module="not_there_at_all"))
    said = unmask("pretrain", images, *recipe, "--out", "run", "--track", "wandb")
    assert said.status == 1
    assert (
        said.err
        == "unmask: the tracker wandb is not installed; install it with `pip install wandb`"
    )
    assert not Path("run").exists()
    assert "measuring" not in said.out
    said = unmask("report", trained.root, "--send", "mlflow")
    assert "install it with `pip install mlflow-skinny`" in said.err


def test_an_unknown_tracker(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", images, *recipe, "--out", "run", "--track", "tensorbord")
    assert said.status == 1
    assert "unknown tracker 'tensorbord'; did you mean 'tensorboard'? Known: mlflow, " in said.err


def test_a_finished_run_is_sent(unmask: Unmask, trained: RunFolder) -> None:
    shutil.copytree(trained.root, "run")
    said = unmask("report", "run", "--send", "mlflow,trackio")
    assert said.status == 0, said.err
    assert (
        "sent: run to mlflow; look at it: MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri run/mlruns"
        in said.out
    )
    assert len(Fake.opened) == 2
    assert all(fake.lines == logged("run") for fake in Fake.opened)
    assert not RunFolder("run").tracked.exists(), "a copy is not continued by --resume"
    assert "which tracker? one or several of " in unmask("report", "run", "--send", ",").err
    said = unmask("report", "run", "--send", "mlflow", "--out", "x.html")
    assert "--send writes no page; leave out --out" in said.err


def test_sending_says_what_failed(
    unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", TRACKERS["wandb"]._replace(open=Broken))
    said = unmask("report", trained.root, "--send", "wandb")
    assert said.status == 1
    assert "the tracker wandb failed (no net)" in said.err
    assert "sent" not in said.out


def test_of_many_lines_some_are_sent_and_every_check() -> None:
    lines = [{"step": float(step), "loss": 1.0} for step in range(1, 101)]
    lines[30]["effective_rank"] = 3.0
    sent = [line["step"] for line in trackers._sparse(lines, 10)]
    assert sent == [10, 20, 30, 31, 40, 50, 60, 70, 80, 90, 100]
    assert trackers._sparse(lines, 1)[-1]["step"] == 100


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "my run").mkdir()
    return Place(tmp_path / "my run", "pretrain", {"seed": "0"}, 0, "")


def test_wandb_is_offline_and_in_the_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from unmask.report.sinks import Wandb

    calls: list[Any] = []

    class Module:
        id = "abc"

        @staticmethod
        def init(**options: Any) -> Any:
            calls.append(options)
            return Module()

        def log(self, fields: dict[str, float], step: int) -> None:
            calls.append((step, fields))

        def finish(self) -> None:
            calls.append("finished")

    monkeypatch.setitem(sys.modules, "wandb", Module)  # pyright: ignore[reportArgumentType]
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sink = Wandb(place)
    sink.log(3, {"loss": 1.0})
    assert sink.close() == "abc"
    assert calls[0]["mode"] == "offline"
    assert calls[0]["dir"] == str(place.root)
    assert calls[1:] == [(3, {"loss": 1.0}), "finished"]
    Wandb(place._replace(identifier="abc"))
    assert (calls[-1]["id"], calls[-1]["resume"]) == ("abc", "allow")


def test_trackio_is_in_the_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from unmask.report.sinks import Trackio

    calls: list[Any] = []

    class Module:
        @staticmethod
        def init(**options: Any) -> Any:
            calls.append((os.environ["TRACKIO_DIR"], options))
            return Module()

        def log(self, fields: dict[str, float], step: int) -> None:
            calls.append((step, fields))

        def finish(self) -> None:
            calls.append("finished")

    monkeypatch.setitem(sys.modules, "trackio", Module)  # pyright: ignore[reportArgumentType]
    monkeypatch.setenv("TRACKIO_DIR", "")
    monkeypatch.delenv("TRACKIO_DIR")
    sink = Trackio(place)
    sink.log(3, {"loss": 1.0})
    assert sink.close() == "my run"
    where, options = calls[0]
    assert where == str(place.root / "trackio")
    assert (options["name"], options["resume"]) == ("my run", "never")
    assert calls[1:] == [(3, {"loss": 1.0}), "finished"]
    other = place.root.parent / "other"
    Trackio(place._replace(root=other))
    assert calls[-1][0] == str(other / "trackio")
    monkeypatch.setenv("TRACKIO_DIR", "mine")
    Trackio(place)
    assert calls[-1][0] == "mine"


def test_tensorboard_really(place: Place) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra: track)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from unmask.report.sinks import TensorBoard

    sink = TensorBoard(place)
    for step in (1, 2, 3):
        sink.log(step, {"loss": 1 / step})
    sink.close()
    sink = TensorBoard(place._replace(first_step=2))
    sink.log(3, {"loss": 7.0})
    sink.close()
    events = EventAccumulator(str(place.root / "tensorboard"))
    events.Reload()
    got = {event.step: event.value for event in events.Scalars("loss")}
    assert got == pytest.approx({1: 1.0, 2: 0.5, 3: 7.0})


def test_mlflow_really(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed (extra: track)")
    from mlflow.tracking import MlflowClient

    from unmask.report.sinks import MLflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sink = MLflow(place)
    sink.log(1, {"loss": 1.0, "learning_rate": 0.5})
    identifier = sink.close()
    again = MLflow(place._replace(identifier=identifier, first_step=1))
    again.log(2, {"loss": 0.5})
    assert again.close() == identifier
    client = MlflowClient((place.root / "mlruns").as_uri())
    run = client.get_run(identifier)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "0"}
    losses = client.get_metric_history(identifier, "loss")
    assert [(one.step, one.value) for one in losses] == [(1, 1.0), (2, 0.5)]
