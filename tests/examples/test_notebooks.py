"""The cells of every notebook run, with a tiny recipe in place of minutes."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from runs import tiny

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


def code(notebook: Path) -> list[str]:
    """The source of the code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks() -> None:
    assert {file.stem for file in NOTEBOOKS} == {"cells", "satellite", "factory"}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_its_outputs_are_there_and_are_no_errors(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_cell_runs(
    notebook: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    matplotlib.use("agg")
    names: dict[str, Any] = {"TINY": tiny.RECIPE}
    cells = code(notebook)
    assert sum("minutes=4" in cell for cell in cells) == 1
    for cell in cells:
        short = re.sub(r"minutes=\d+", "recipe=TINY", cell).replace("whitened=32", "whitened=8")
        exec(compile(short, notebook.name, "exec"), names)
    assert list(tmp_path.glob("runs/*/checkpoints"))
