"""`--threads`: every command that computes takes it, and its default leaves busy cores alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands.said import Unmask
from runs import tiny, tiny_transfer

from unmask.cli import COMMANDS
from unmask.console.hardware import MachineFlags
from unmask.console.studies import make_folder, with_kept_threads
from unmask.errors import DataError
from unmask.runs.folder import RunFolder

NOT_COMPUTING = {
    "pack",
    "completion",
    "report",
}  # packing decodes and encodes in --workers processes


@pytest.fixture
def one_of_four(unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> Unmask:
    """On a machine of four cores, of which other work leaves one."""
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 4)
    monkeypatch.setattr("unmask.console.studies.cores", lambda: 4)
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 1)
    return unmask


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - NOT_COMPUTING))
def test_every_command_that_computes_has_the_flag(unmask: Unmask, command: str) -> None:
    said = unmask(command, "--help-all")
    assert "--threads" in said.out
    assert "as many as there are free cores if not given" in said.out


@pytest.mark.parametrize(
    "command", ["words", "evaluate RUN DATA", "reconstruct RUN IMAGE", "convert RUN x --to unmask"]
)
@pytest.mark.parametrize("threads", ["0", "-1"])
def test_no_threads(
    unmask: Unmask, trained: RunFolder, classes: Path, images: Path, command: str, threads: str
) -> None:
    places = {"RUN": trained.root, "DATA": classes, "IMAGE": images / "00.png"}
    words = [places.get(word, word) for word in command.split()]
    said = unmask(*words, "--threads", threads)
    assert said.status == 1
    assert f"--threads must be at least 1, got {threads}" in said.err


def test_busy_cores_are_left_alone_and_said(
    one_of_four: Unmask, trained: RunFolder, images: Path
) -> None:
    words = ("reconstruct", trained.root, images / "00.png")
    said = one_of_four(*words)
    assert said.status == 0
    assert torch.get_num_threads() == 1
    note = "note: other work leaves 1 of 4 cores free, so torch uses 1; --threads 4 uses all"
    assert note in said.err
    said = one_of_four(*words, "--threads", 2)
    assert "other work" not in said.all
    assert torch.get_num_threads() == 2


def test_an_error_of_the_input_comes_without_a_note_on_cores(
    one_of_four: Unmask, trained: RunFolder, images: Path, recipe: list[str]
) -> None:
    for words in (
        ("evaluate", trained.root, images),
        ("pretrain", images, *recipe, "--image-size", "7"),
        ("pretrain", images, *recipe, "--init", trained.root, "--model", "vit-ti"),
    ):
        said = one_of_four(*words)
        assert said.status == 1
        assert "other work" not in said.all, words
    said = one_of_four("pretrain", images, *recipe[:-4], "--workers", "0", "--out", "run")
    assert said.status == 0
    assert said.err.count("other work leaves 1 of 4 cores free") == 1


def test_json_stays_json(one_of_four: Unmask, trained: RunFolder, classes: Path) -> None:
    said = one_of_four("evaluate", trained.root, classes, "--seeds", 1, "--json")
    assert json.loads(said.raw)["test_images"] == 4
    assert "other work leaves 1 of 4 cores free" in said.err


def test_prediction_takes_it(one_of_four: Unmask, classes: Path, tmp_path: Path) -> None:
    folder = tiny_transfer.begin(tmp_path / "tuned", classes)
    tiny_transfer.go_on(folder)
    said = one_of_four("predict", folder.root, classes / "dogs" / "03.png", "--threads", 3)
    assert said.status == 0
    assert torch.get_num_threads() == 3


def test_idle_threads_sleep_soon() -> None:
    """libgomp reads its settings when it is loaded, with torch."""
    code = """
import os, sys
from unmask import cli
sys.argv = ["unmask", "no-such-command"]
try:
    cli.main()
finally:
    print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"), flush=True)
"""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    for own, spins in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({names[1]: "ACTIVE"}, None)):
        ended = subprocess.run(
            [sys.executable, "-c", code], env=plain | own, capture_output=True, text=True
        )
        assert ended.stdout == f"False {spins}\n", ended.stderr


@pytest.mark.parametrize(("flags", "threads"), [([], 2), (["--threads", 1], 1)])
def test_a_resumed_run_keeps_its_threads(
    one_of_four: Unmask, images: Path, tmp_path: Path, flags: list[object], threads: int
) -> None:
    """Busy cores do not change a run that has begun; what may be faster is said."""
    folder = tiny.begin(tmp_path / "run", images, threads=2)
    said = one_of_four("pretrain", "--resume", folder.root, *flags)
    assert said.status == 0
    assert torch.get_num_threads() == threads
    assert ("hardware settings differ" in said.out) == bool(flags)
    assert ("the run uses 2 threads; --threads 1 may be faster" in said.err) != bool(flags)


def test_a_resumed_run_refuses_no_threads(unmask: Unmask, images: Path, tmp_path: Path) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    said = unmask("pretrain", "--resume", folder.root, "--threads", 0)
    assert "--threads must be at least 1, got 0" in said.err


def test_a_new_run_takes_the_free_cores(
    one_of_four: Unmask, images: Path, recipe: list[str]
) -> None:
    place = recipe.index("--threads")
    said = one_of_four("pretrain", images, *recipe[:place], *recipe[place + 2 :], "--out", "run")
    assert said.status == 0
    assert "machine cpu, float32, 1 thread" in said.out
    assert "other work leaves 1 of 4 cores free" in said.err


def test_a_study_keeps_the_threads_of_its_folder(
    one_of_four: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epochs of a comparison follow from measured costs, so a second process must measure alike."""
    root = Path("studies")
    flags = with_kept_threads(MachineFlags(), make_folder(str(root)))
    assert flags.threads == 1
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 4)
    assert with_kept_threads(MachineFlags(), root).threads == 1
    assert with_kept_threads(MachineFlags(threads=3), root).threads == 3
    (root / "runs" / "threads.json").write_text("16")
    assert with_kept_threads(MachineFlags(), root).threads == 4, "no more than there are"
    (root / "runs" / "threads.json").write_text("[]")
    with pytest.raises(DataError, match="must hold a number of threads"):
        with_kept_threads(MachineFlags(), root)
    old = make_folder("old")
    (old / "runs" / "costs-mask-ratio").mkdir()
    (old / "runs" / "costs-mask-ratio" / "costs.json").write_text("{}")
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 1)
    assert with_kept_threads(MachineFlags(), old).threads == 4, "as it began: with all cores"
