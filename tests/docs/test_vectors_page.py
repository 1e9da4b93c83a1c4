"""Every command and every block of docs/vectors.md runs, on pictures of a few pixels."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from runs import tiny

from unmask import cli

PAGE = (Path(__file__).parents[2] / "docs" / "vectors.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Lance:
    """Of LanceDB what the page calls: a table of Arrow, and the rows that are nearest to a vector."""

    def connect(self, _: str) -> "Lance":
        return self

    def create_table(self, _: str, data: pa.Table) -> "Lance":
        assert pa.types.is_fixed_size_list(data.schema.field("vector").type)
        self.rows = data.to_pylist()
        return self

    def search(self, query: Any) -> "Lance":
        self.rows.sort(key=lambda row: float(np.square(np.array(row["vector"]) - query).sum()))
        return self

    def limit(self, count: int) -> "Lance":
        self.rows = self.rows[:count]
        return self

    def to_list(self) -> list[dict[str, Any]]:
        return self.rows


def test_every_command_and_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 1)
    tiny.finished_run(Path("runs/photos"), tiny.write_images(Path("photos")))
    tiny.write_classes(Path("animals"))
    assert len(COMMANDS) == 4
    for line in COMMANDS:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "lancedb", Lance())  # pyright: ignore[reportArgumentType]
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/vectors.md", "exec"), names)
    assert len(names["table"]) == 20
    assert names["found"].scores[0] == pytest.approx(1)
    assert names["again"].numpy() == pytest.approx(names["vector"].numpy(), abs=1e-4)
    said = capsys.readouterr().out
    assert "fixed_size_list<element: float>[8]" in said
    found = [line for line in said.splitlines() if line.startswith("['cats/00.png',")]
    assert len(found) == 2
    assert found[0] == found[1]
