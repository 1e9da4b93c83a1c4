"""Files are written whole: the old content stays until the new one is complete."""

from pathlib import Path

import pytest

from unmask.files import is_unfinished, write_whole


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("old", "new"):
        write_whole(path, lambda temporary, text=text: temporary.write_text(text))
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_whole(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_leaves_can_be_told_from_other_files(tmp_path: Path) -> None:
    seen: list[Path] = []

    def write(temporary: Path) -> None:
        seen.append(temporary)
        temporary.write_text("half")

    write_whole(tmp_path / "a.json", write)
    assert is_unfinished(seen[0])
    assert seen[0].parent == tmp_path
    for name in ("a.json", ".a.json", "12-a.json", ".12-", ".writing-step-0000001"):
        assert not is_unfinished(tmp_path / name)
