"""Every block of docs/python.md runs, one after another, with recipes so small that a step takes milliseconds."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from runs import tiny

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_every_block_runs(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_images(tmp_path / "photos")
    tiny.write_classes(tmp_path / "animals")
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["vectors"].shape == (12, 8)
    assert names["tokens"].shape == (12, 17, 8)
    assert torch.equal(names["encoder"](names["batch"]), names["tokens"])
    assert names["classifier"].classes == ("cats", "dogs")
    for picture in ("sheet.png", "lower_half.png"):
        with Image.open(tmp_path / picture) as image:
            assert min(image.size) > 128
    said = capsys.readouterr().out
    assert "Model: tiny, step 6" in said
    assert "top-1 " in said


def test_the_page_has_blocks() -> None:
    assert len(BLOCKS) >= 8
