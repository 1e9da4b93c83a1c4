"""A run that is killed again and again ends as one that never was."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import killing, tiny

from unmask.runs.folder import RunFolder

EPOCHS = 30  # 90 steps


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("killed") / "images")


@pytest.fixture(scope="module")
def killed(images: Path) -> tuple[RunFolder, dict[str, Any]]:
    """A run that was killed many times and then ended, and the killer's report."""
    recipe = replace(tiny.RECIPE, epochs=EPOCHS)
    folder = tiny.begin(images.parent / "killed", images, recipe=recipe)
    report, said = images.parent / "report.json", images.parent / "said.txt"
    tests = Path(__file__).parent.parent
    with said.open("w") as output:
        done = subprocess.run(
            [sys.executable, killing.__file__, folder.root, report],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"},
            timeout=240,
        )
    assert done.returncode == 0, said.read_text()
    return folder, json.loads(report.read_text())


@pytest.mark.slow
def test_killed_run_ends_like_one_that_never_was(
    killed: tuple[RunFolder, dict[str, Any]], images: Path
) -> None:
    folder, report = killed
    assert report["kills"] >= 20
    assert report["inside_save"] >= 5
    recipe = replace(tiny.RECIPE, epochs=EPOCHS)
    whole = tiny.finished_run(images.parent / "whole", images, recipe=recipe)
    assert [line["step"] for line in tiny.timeless(whole)] == list(range(1, 91))
    tiny.assert_same_end(folder, whole)


@pytest.mark.slow
def test_kills_cost_no_finished_step(killed: tuple[RunFolder, dict[str, Any]]) -> None:
    """The newest whole checkpoint never goes back."""
    steps = killed[1]["steps"]
    assert steps == sorted(steps)
    assert 0 < steps[-1] < 90  # or the kills came too late to count


@pytest.mark.slow
def test_nothing_half_written_is_left(killed: tuple[RunFolder, dict[str, Any]]) -> None:
    folder, _ = killed
    found = sorted(path.name for path in folder.checkpoints.iterdir())
    assert found[-1] == "step-0000090"
    assert len(found) == 2


@pytest.mark.slow
def test_second_process_is_refused_and_the_first_named(
    killed: tuple[RunFolder, dict[str, Any]],
) -> None:
    folder, report = killed
    assert f"{folder.root} is in use by process {report['holder']} on " in report["refusal"]
    assert "--out" in report["refusal"]
