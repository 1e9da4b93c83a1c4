"""Files are written whole: the old content stays until the new one is complete."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.errors import DataError
from unmask.files import clear_unfinished, is_unfinished, parse_json, read_json, write_whole


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": ', "is not valid JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"label": ' + b"1" * 5000 + b"}", "is not valid JSON"),
        (b"\xff\xfe\xff", "is not valid JSON"),
        (b'"' + b"a" * 100 + b'"', "larger than 64 bytes"),
    ],
)
def test_json_that_cannot_be_read_names_the_file(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "note.json"
    file.write_bytes(content)
    most = 64 if reason.startswith("larger") else 2**20
    with pytest.raises(DataError, match=reason) as caught:
        read_json(file, most)
    assert str(file) in str(caught.value)


def test_json_is_read() -> None:
    assert parse_json('{"a": [1, null]}', "a note") == {"a": [1, None]}


def test_what_a_killed_process_leaves_is_cleared_and_what_is_written_is_kept(
    tmp_path: Path,
) -> None:
    """A killed process is one without the lock, whichever its id; this one holds its own."""
    for name in (".1-a.arrow", f".{os.getpid()}-b.arrow", "c.arrow", ".hidden"):
        (tmp_path / name).write_text("old")

    def write(temporary: Path) -> None:
        clear_unfinished(tmp_path)
        temporary.write_text("new")

    write_whole(tmp_path / "d.arrow", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "c.arrow", "d.arrow"]
    clear_unfinished(tmp_path / "gone")  # no folder, nothing to clear


_WRITE = """
import sys, time
import os
import subprocess
import sys
from pathlib import Path
from unmask.files import write_whole
def write(path):
    path.write_bytes(bytes(1000))
    print("writing", flush=True)
    time.sleep(600)
write_whole(Path(sys.argv[1]) / "a.arrow", write)
"""


def test_while_the_process_lives_and_once_it_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        clear_unfinished(tmp_path)
        (left,) = tmp_path.iterdir()
        process.kill()
    clear_unfinished(tmp_path)
    assert not left.exists()
