"""benchmarks/gpu.py runs on a machine that has torch, torchvision, timm and numpy alone; here on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unmask

SOURCE = Path(unmask.__file__).parents[1]
SCRIPT = SOURCE.parent / "benchmarks" / "gpu.py"
MISSING = [
    "tyro",
    "rich",
    "cattrs",
    "jaxtyping",
    "pyarrow",
    "platformdirs",
    "safetensors",
    "torchcodec",
    "sklearn",
    "scipy",
    "matplotlib",
    "transformers",
    "lightly",
    "huggingface_hub",
    "beartype",
    "tifffile",
    "imagecodecs",
    "threadpoolctl",
]


@pytest.mark.slow
def test_on_a_bare_machine(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    script = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({MISSING!r})); "
        f"sys.path.insert(0, {str(SCRIPT.parent)!r}); sys.argv = ['gpu.py', '--tiny', '--json', {str(out)!r}]; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "failed: nothing" in done.stdout, done.stdout
    found = json.loads(out.read_text())
    assert found["facts"]["transformers"] == "absent (transformers)"
    assert found["facts"]["lightly"].startswith("absent")
    assert found["facts"]["loading"].startswith("absent")
    assert "tolerance" in found["facts"]["gradient, relative difference"]
    measured = {row["what"]: row for row in found["rows"]}
    assert {"unmask mae-digits", "unmask finetune-digits"} <= set(measured)
    assert all(row["images_per_second"] > 0 for row in found["rows"])
    assert not any("tyro" in line for line in done.stderr.splitlines())
