"""How the sweeps call commands: in this process, in an empty folder, with short measurements."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask import cli

WITHOUT_PICTURES = (
    "note: the report has no more pictures (DALL-E's codes cannot be turned into pictures without its decoder, which "
    "unmask does not read; use a run with objective.target:tokenizer for pictures); training is not affected"
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty folder, and short measurements."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.runs.target._MOST_IMAGES", 256)
    monkeypatch.setattr("unmask.training.step_cost._LONG_ENOUGH", 0.0)
    monkeypatch.setattr("unmask.training.step_cost._CEILING_SECONDS", 0.0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def unmask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`unmask("pretrain", folder, ...)`: what a command line that succeeds says."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["unmask", *map(str, words)])
        status: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code or 0
        out, err = capsys.readouterr()
        assert status == 0, err or out
        # no report fails; of DALL-E's codes it says why there are no pictures
        assert "training is not affected" not in err.replace(WITHOUT_PICTURES, "")
        return out

    return run
