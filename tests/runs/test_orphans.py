"""Loading processes end with the process that started them, whatever ends it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unmask.data.loader import Failures, fetched

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

SECONDS = 20.0
"""How long a test waits for what takes a second; on a busy machine everything is slower."""


def runs(process: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def large(number: int, _: Failures) -> tuple[int, bytes]:
    """More than a pipe holds, and who computed it."""
    return os.getpid(), bytes(2**21)


@pytest.mark.parametrize("reads_on", [False, True])
def test_a_killed_parent_takes_its_loading_processes_along(reads_on: bool) -> None:
    """Their results wait to be read when it is killed, or they wait for work."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            results = fetched(large, iter(range(6 if reads_on else 1000)), workers=2)
            workers = {next(results)[0], next(results)[0]}
            for _ in range(4 if reads_on else 0):
                next(results)
            os.write(writing, " ".join(map(str, workers)).encode())
            time.sleep(60)
        os._exit(1)
    os.close(writing)
    workers = list(map(int, os.read(reading, 100).split()))
    os.close(reading)
    assert len(workers) == 2
    assert all(map(runs, workers))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert soon(lambda: not any(map(runs, workers)))


def soon(condition: Callable[[], bool]) -> bool:
    """Whether a condition holds within a time that is long for it."""
    limit = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
    return condition()
