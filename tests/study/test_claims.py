"""One process works on a run; a dead one's is taken over."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from unmask.study import claims
from unmask.study.claims import claimed


def claim(folder: Path, number: int, host: str, process: int, age: float) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"claim-{number}"
    path.write_text(json.dumps({"host": host, "process": process}))
    _touch(path, age)
    return path


def _touch(path: Path, age: float) -> None:
    then = time.time() - age
    os.utime(path, (then, then))


def is_mine(folder: Path) -> bool:
    with claimed(folder) as mine:
        return mine


def test_a_claim_keeps_others_out_and_is_given_back(tmp_path: Path) -> None:
    with claimed(tmp_path / "run") as mine:
        assert mine
        assert not is_mine(tmp_path / "run")
        assert is_mine(tmp_path / "other")
    assert not list((tmp_path / "run").glob("claim-*"))
    assert is_mine(tmp_path / "run")


def test_what_a_killed_owner_left_half_written_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / ".4711-scores.json"
    left.touch()
    assert is_mine(tmp_path)
    assert not left.exists()


def test_given_back_after_an_error(tmp_path: Path) -> None:
    try:
        with claimed(tmp_path):
            raise ValueError
    except ValueError:
        pass
    assert is_mine(tmp_path)


def test_a_dead_process_of_this_machine_is_noticed_at_once(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    claim(tmp_path, 0, socket.gethostname(), ended.pid, age=0)
    assert is_mine(tmp_path)
    claim(tmp_path, 0, socket.gethostname(), os.getpid(), age=0)
    assert not is_mine(tmp_path)


def test_a_silent_machine_is_dead_after_two_minutes(tmp_path: Path) -> None:
    claim(tmp_path, 4, "elsewhere", 1, age=90)
    assert not is_mine(tmp_path)
    claim(tmp_path, 4, "elsewhere", 1, age=150)
    with claimed(tmp_path) as mine:
        assert mine
        assert (tmp_path / "claim-5").exists(), "the next number, so that one of several wins"


def test_a_half_written_claim_counts_until_it_is_old(tmp_path: Path) -> None:
    path = claim(tmp_path, 0, "elsewhere", 1, age=0)
    path.write_text("{")
    assert not is_mine(tmp_path)
    _touch(path, 150)
    assert is_mine(tmp_path)


def test_only_one_of_many_processes_wins(tmp_path: Path) -> None:
    claim(tmp_path, 0, "elsewhere", 1, age=1000)
    code = (  # the one file: importing all of the package takes each process seconds
        "import importlib.util, sys; from pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('claims', sys.argv[2])\n"
        "claims = importlib.util.module_from_spec(spec); spec.loader.exec_module(claims)\n"
        "with claims.claimed(Path(sys.argv[1])) as mine:\n    print(mine, flush=True); sys.stdin.read()"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), claims.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        said = [process.stdout.readline().strip() for process in started]  # pyright: ignore
    finally:
        for process in started:
            process.communicate()
    assert sorted(said) == ["False", "False", "False", "True"]
