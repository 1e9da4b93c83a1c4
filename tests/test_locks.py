"""A lock keeps other processes out, names its holder, and is not needed where the file system has none."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unmask import locks
from unmask.locks import Taken, locked

HOLD = """
import sys
from pathlib import Path
from unmask.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_kept_out_until_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Taken, match=f"process {holder.pid} on "), locked(path):
            pass
        holder.kill()
        holder.wait()
    with locked(path) as note:
        assert note == ""
        assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_a_holder_whose_name_cannot_be_read_is_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").write_bytes(b"\xff")
    monkeypatch.setattr(locks, "_lock", refusing(errno.EAGAIN))
    with pytest.raises(Taken, match=r"\\xff"), locked(tmp_path / "lock"):
        pass
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(Taken, match="another process"), locked(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("number", ["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "EIO", "ENOSYS", "EINVAL"])
def test_a_file_system_without_locks_is_not_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setattr(locks, "_lock", refusing(getattr(errno, number)))
    with locked(tmp_path / "lock") as note:
        assert note.startswith(f"{tmp_path} is on a file system without locks (")


def test_a_python_without_fcntl_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with locked(tmp_path / "lock") as note:
        assert "without locks" in note


def refusing(number: int):  # type: ignore[no-untyped-def]
    """Locking as the system refuses it."""

    def refuse(_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse
