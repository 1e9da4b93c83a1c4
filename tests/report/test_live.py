"""The report while a run trains."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import tiny

from unmask.report import live
from unmask.report.live import LiveReport
from unmask.report.looks import steps_looked_at
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.training import Progress

STEPS = 6


def seen(root: Path, images: Path, said: list[str]) -> tuple[RunFolder, LiveReport]:
    """A finished run, whose report has seen every step."""
    folder = tiny.begin(root, images)
    run = Run.read(folder)
    source, module = run.data.open("train"), run.build()
    report = LiveReport(run, folder, source, module, 0, said.append)
    for progress in tiny.go_on(folder):
        report.see(progress)
    return folder, report


def test_each_look_is_taken(tmp_path: Path, images_here: Path) -> None:
    folder, _ = seen(tmp_path / "run", images_here, said := [])
    assert steps_looked_at(folder) == [STEPS // 2, STEPS]  # few images are shown
    assert said == []


def test_several_processes_look_only_at_the_end(
    tmp_path: Path, images_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "here", lambda: SimpleNamespace(count=2, first=True))
    folder, report = seen(tmp_path / "run", images_here, said := [])
    assert steps_looked_at(folder) == []
    report.finish()
    assert steps_looked_at(folder) == [STEPS]
    assert said == []


def test_at_most_once_a_minute(
    tmp_path: Path, images_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And more rarely if a page takes long: two seconds of writing give 200 seconds without."""
    clock = [0.0]
    written: list[float] = []

    def write(*_: Any, **__: Any) -> None:
        written.append(clock[0])
        clock[0] += 2.0 if clock[0] > 100 else 0.1

    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(live, "write_page", write)
    folder = tiny.begin(tmp_path / "run", images_here)
    run = Run.read(folder)
    report = LiveReport(run, folder, run.data.open("train"), run.build(), 0, print)
    monkeypatch.setattr(report, "_looks", None)
    for step in range(1, 400):
        clock[0] = max(clock[0], float(step))
        report.see(
            Progress(step, 1_000, [{"step": step, "loss": 1.0, "learning_rate": 0.1}], False)
        )
    assert written == [60.0, 121.0, 323.0]


def test_an_error_is_said_once_and_the_page_tried_again(
    tmp_path: Path, images_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fails(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise OSError("no room\nhere")

    monkeypatch.setattr(live, "write_page", fails)
    monkeypatch.setattr(live, "_SECONDS", -1.0)
    monkeypatch.setattr(live, "_SHARE", 0)
    folder, report = seen(tmp_path / "run", images_here, said := [])
    report.finish()
    assert said == [f"{folder.report} could not be written (no room); training is not affected"]
    assert len(calls) > 1
