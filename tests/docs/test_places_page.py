"""Every command of docs/places.md runs, on a map of a few pixels and an encoder of seconds."""

import csv
import shlex
import sys
from pathlib import Path

import pytest
from geo import scenes
from PIL import Image
from runs import tiny

from unmask import cli

PAGE = (Path(__file__).parents[2] / "docs" / "places.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in PAGE.split("```sh\n")[1:]
    for line in block.split("```")[0].splitlines()
    if line.startswith("unmask ")
]


def test_every_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 1)
    monkeypatch.setattr("unmask.places.calibration.PIECES", 4)
    pixels, _ = scenes.write_geotiff(Path("map.tif"), 4326, 2 / 111_000)
    Image.fromarray(pixels).crop((10, 10, 92, 56)).save("drone.jpg")
    with Path("photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "x", "y"), ("drone.jpg", 51, 33)])
    assert len(COMMANDS) == 5
    quick = f"--recipe {tiny.__file__}:RECIPE --epochs 1 --workers 0"
    for line in COMMANDS:
        short = line.replace("--minutes 30", quick)
        if "--recipe place-ti16" in line:
            short = short.replace("--recipe place-ti16", "").replace(":RECIPE", ":PLACE")
        words = shlex.split(short)
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "raw pixels" in said
    assert Path("located.png").exists()
