"""Where weights are written: what appears there in the meantime stays."""

from pathlib import Path

import pytest

from unmask.errors import ResourceError
from unmask.formats.destination import put, writing_beside


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    destination = tmp_path / "new"
    destination.mkdir()

    def write() -> None:
        with writing_beside(destination) as writing:
            for name in ("README.md", "model.safetensors"):
                (writing / name).write_text("ours")
            (destination / "README.md").write_text("theirs")
            put(writing, destination)

    with pytest.raises(ResourceError, match=r"new cannot be written \(Directory not empty\)"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert {path.name: path.read_text() for path in destination.iterdir()} == {
        "README.md": "theirs"
    }
