"""`unmask bench` as a user types it."""

import json
from pathlib import Path

import pytest
from runs import tiny

from unmask.commands import bench
from unmask.errors import DataError, ResourceError, SettingsError
from unmask.runs import bench as measuring


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.training.step_cost._CEILING_SECONDS", 0.0)
    for name in ("_STEP_SECONDS", "_SIZE_SECONDS", "_LOADER_SECONDS", "_TOGETHER_SECONDS"):
        monkeypatch.setattr(measuring, name, 0.1)


SMALL = ["--recipe", "mae-digits", "--micro-batch", "4", "--threads", "1"]


@pytest.mark.slow
def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([*SMALL, "--json", "--data", "digits"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipe"] == "mae-digits"
    assert [step["images"] for step in found["steps"]] == [4]
    assert found["loader"]["images_per_second"] > 0
    assert 0 <= found["together"]["waiting"] < 1
    assert found["machine"]["threads"] == 1


@pytest.mark.slow
def test_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny.write_images(tmp_path, 6)
    assert bench.main([*SMALL, "--data", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "1 of " in said.out
    assert "of ceiling" in said.out
    assert "loading " in said.out
    assert "bottleneck: " in said.out
    assert "about a minute" in said.err


@pytest.mark.parametrize("seconds", [0.0123, 0.999, 123.4])
def test_a_row_fits_in_80_columns(seconds: float) -> None:
    ends = (0.9 * seconds, 1.1 * seconds)
    step = measuring.StepSpeed(
        images=16_384,
        steps=7,
        median_seconds=seconds,
        quartiles_seconds=ends,
        images_per_second=123_456.0,
        flops_per_second=3.5e12,
        mfu=0.57,
        peak_memory=123 * 2**30,
    )
    row = bench._row(step)
    assert len(row) <= 80
    scale, unit = (1, "s") if seconds >= 1 else (1000, "ms")
    assert f" {scale * seconds:.3g} ({scale * ends[0]:.3g} to {scale * ends[1]:.3g}) {unit} " in row


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["photos"], SettingsError, "give images as --data photos"),
        (["--recipe", "mae-b61"], SettingsError, "did you mean 'mae-b16'"),
        (["--data", "/nowhere"], DataError, "/nowhere does not exist"),
        (["--micro-batch", "0"], SettingsError, "micro-batch must be at least 1, got 0"),
        (["--threads", "0"], SettingsError, "threads must be at least 1, got 0"),
        (["--device", "cuda:99"], ResourceError, "--device cuda:99 cannot be used here"),
    ],
)
def test_bad_input(arguments: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bench.main(arguments)
