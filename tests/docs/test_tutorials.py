"""The tutorials, command by command, on stand-ins for the reader's pictures; trainings are cut to an epoch or some seconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from docs.pages import ROOT, command_lines, run
from docs.stand_ins import line, plates, published, shortened, tiles

TUTORIALS = ROOT / "docs" / "tutorials"
READERS: dict[str, Callable[[np.random.Generator], None]] = {
    "microscope": plates,
    "satellite": tiles,
    "factory": line,
    "published-code": published,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_every_command_works(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    READERS[name](np.random.default_rng(0))
    commands = list(command_lines(TUTORIALS / f"{name}.md"))
    assert len(commands) >= 4
    for command in commands:
        assert run(shortened(command), monkeypatch) == 0, (command, capsys.readouterr())
    if name == "satellite":
        with tifffile.TiffFile(next(Path("maps").rglob("*.tif"))) as answer:
            assert answer.pages[0].tags[33922].value[3:5] == (250_000.0, 2_680_000.0)


def test_all_tutorials_are_read() -> None:
    assert {page.stem for page in TUTORIALS.glob("*.md")} == set(READERS)
