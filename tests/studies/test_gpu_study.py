"""studies/gpu.py runs without network on a machine that lacks packages, and does not do twice what is done; here on a CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unmask

SOURCE = Path(unmask.__file__).parents[1]
PROGRAM = SOURCE.parent / "studies" / "gpu.py"
CARRIED = {"cattrs", "jaxtyping", "platformdirs", "safetensors"}
LACKED = {"pyarrow", "transformers", "lightly", "torchcodec", "tyro", "rich", "sklearn", "scipy", "matplotlib"}  # fmt: skip


def call(*words: Path | str, packages: Path | None = None, lacking: Iterable[str] = ()) -> str:
    """Run the program where packages are missing; what it prints."""
    script = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({sorted(lacking)!r})); "
        f"sys.path.insert(0, {str(PROGRAM.parent)!r}); sys.argv = ['gpu.py', *{[str(w) for w in words]!r}]; "
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    path = os.pathsep.join(str(each) for each in (SOURCE, packages) if each)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def results(out: Path) -> dict[str, dict[str, Any]]:
    """The last result of each part; of a line that was cut off nothing."""
    lines = (out / "results.jsonl").read_text().splitlines()
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    return {line["part"]: line for line in whole}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Dark and bright pictures of 32 pixels, for training and testing."""
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for low, name in ((0, "dark"), (128, "bright")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(low, low + 128, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_a_bare_machine_and_again(tmp_path: Path, data: Path) -> None:
    carried, out = tmp_path / "carried", tmp_path / "out"
    printed = call("--prepare", carried, "--data", data)
    assert "holds no torchcodec, without which nothing is decoded on the GPU" in printed
    assert {"cattrs", "attr", "safetensors"} <= {p.name for p in (carried / "packages").iterdir()}

    # without any of them the steps are measured, and what needs packages says so
    words = ("--tiny", "--out", out, "--data", carried, "--minutes", "5")
    call(*words, lacking=LACKED | CARRIED | {"timm"})
    first = results(out)
    done = {name for name, line in first.items() if line["outcome"] == "done"}
    assert done == {"step mae-digits", "step segment-ti8", "step detect-mini"}
    assert all(line["rows"] for name, line in first.items() if name in done)
    trainings = {f"CIFAR-10, {way}" for way in ("winner by time", "exact recipe", "from scratch")}
    assert {first[name]["outcome"] for name in trainings} == {"absent (cattrs)"}
    assert first["decode gpu, 0 processes"]["outcome"] == "absent (pyarrow)"

    # with what was carried the training runs too, and nothing that is done is done again
    printed = call(*words, packages=carried / "packages", lacking=LACKED)
    assert all(f"{name}: done before" in printed for name in done)
    second = results(out)
    for name in trainings:
        assert second[name]["outcome"] == "done", second[name]
        assert 0 <= second[name]["facts"]["fine-tuned, %"] <= 100
        assert 0 <= second[name]["facts"]["k-NN, mean of patches, %"] <= 100
    assert second["CIFAR-10, winner by time"]["facts"]["pretraining, epochs"] > 0
    assert {name: second[name] for name in done} == {name: first[name] for name in done}
    written = (out / "results.jsonl").read_text()
    assert [json.loads(line)["part"] for line in written.splitlines()].count("step mae-digits") == 1

    # on this machine the rest; a line that was cut off is not in the way
    (out / "results.jsonl").write_text(written + '{"part": "step mae-d')
    call(*words, "--only", "decode", "step")
    third = results(out)
    decoded = [line for name, line in third.items() if name.startswith("decode")]
    assert len(decoded) == 3
    assert {line["outcome"] for line in decoded} == {"done"}
    assert all(line["facts"]["both, images/s"] > 0 for line in decoded)
    assert {name: third[name] for name in trainings} == {name: second[name] for name in trainings}
    table = (out / "results.md").read_text()
    for name in third:
        assert table.count(f"| {name} | ") >= 1
    assert "| unmask mae-digits |" in table
    assert f"| {third['CIFAR-10, from scratch']['facts']['fine-tuned, %']} |" in table


@pytest.mark.slow
def test_what_does_not_fit_is_left_for_the_next_call(tmp_path: Path) -> None:
    """A part of 45 s would fit in 45.1 s, of which the imports have taken some."""
    words = ("--only", "step mae-digits", "--minutes", str(45.1 / 60))
    assert "left for the next call" in call("--tiny", "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.slow
def test_results_of_a_call_before_are_carried_to_an_empty_folder(tmp_path: Path) -> None:
    before, out = tmp_path / "carried.jsonl", tmp_path / "out"
    line = {
        "part": "step mae-digits", "outcome": "done", "seconds": 1.5, "tiny": True, "device": "cpu",
        "torch": "2", "facts": {"said": "before"}, "rows": [],
    }  # fmt: skip
    before.write_text(json.dumps(line) + "\n")
    words = ("--tiny", "--out", out, "--only", "step mae-digits", "step detect-mini")
    printed = call(*words, "--earlier", before)
    assert "step mae-digits: done before" in printed
    found = results(out)
    assert found["step mae-digits"] == line
    assert found["step detect-mini"]["outcome"] == "done"
    assert "| said | before |" in (out / "results.md").read_text()
