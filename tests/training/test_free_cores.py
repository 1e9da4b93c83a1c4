"""The cores that other work leaves free, from made counters and from the machine's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unmask.training import free_cores as module
from unmask.training.cgroups import CpuGroup, cpu_groups
from unmask.training.free_cores import Reading, free_between, free_cores, reading


def busy(seconds: float, *shares: float, own: float = 0.0) -> tuple[Reading, Reading]:
    """Readings before and after some seconds in which each core was busy for a share of the time."""
    ticks = 100 * seconds
    before = Reading(10.0, 5.0, {core: (1000, 4000) for core in range(len(shares))}, ())
    after = {
        core: (1000 + round(ticks * (1 - share)), 4000 + round(ticks))
        for core, share in enumerate(shares)
    }
    return before, Reading(10.0 + seconds, 5.0 + own * seconds, after, ())


@pytest.mark.parametrize(
    ("shares", "free"),
    [
        ((0.0, 0.0), 2),
        ((0.05, 0.1), 2),  # what every system does
        ((1.0, 0.0), 1),
        ((1.0, 1.0), 1),  # never none
        ((0.5, 0.5), 1),
        ((1.0,) * 3 + (0.01,) * 13, 13),
    ],
)
def test_busy_cores_are_not_free(shares: tuple[float, ...], free: int) -> None:
    assert free_between(*busy(2.0, *shares), every=len(shares)) == free


def test_the_work_of_this_process_does_not_count() -> None:
    assert free_between(*busy(2.0, 1.0, 0.0, own=1.0), every=2) == 2
    assert free_between(*busy(2.0, 1.0, 1.0, own=1.0), every=2) == 1


def test_a_quota_limits_what_is_free() -> None:
    """64 idle cores, of which a container may use 2, or 1.5, and another process of it uses one."""
    before, after = busy(2.0, *[0.0] * 64)
    for limit, used, free in ((2.0, 0.0, 2), (2.0, 1.0, 1), (1.5, 0.0, 2), (4.0, 1.0, 3)):
        groups = [CpuGroup(limit, 7.0)], [CpuGroup(limit, 7.0 + 2.0 * used)]
        pair = before._replace(groups=groups[0]), after._replace(groups=groups[1])
        assert free_between(*pair, every=min(64, -int(-limit // 1))) == free


def test_where_nothing_is_said_all_are_free(tmp_path: Path) -> None:
    before = reading(tmp_path)
    assert (before.by_core, list(before.groups)) == ({}, [])
    assert free_between(before, before._replace(clock=before.clock + 1), every=8) == 8


def test_counters_of_the_kernel_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of proc(5): user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    stat = "cpu  9 9 9 9 9\ncpu0 10 1 2 100 20 3 4 5 6 0\ncpu1 1 1 1 1 1 1 1 1 0 0\ncpu2 5 0 5 90 0 0 0 0 0 0\nintr 1\n"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(stat)
    assert reading(tmp_path).by_core == {0: (120, 145), 2: (90, 100)}


def test_groups_of_both_versions(tmp_path: Path) -> None:
    for name, text in {
        "proc/self/cgroup": "4:cpu,cpuacct:/job\n0::/job",
        "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "150000",
        "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu/job/cpuacct.usage": "2500000000",
        "sys/fs/cgroup/job/cpu.max": "400000 100000",
        "sys/fs/cgroup/job/cpu.stat": "usage_usec 1500000\nuser_usec 1",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cpu_groups(tmp_path) == [CpuGroup(4.0, 1.5), CpuGroup(1.5, 2.5)]
    assert [group.whole_cores for group in cpu_groups(tmp_path)] == [4, 2]


@pytest.mark.slow  # it keeps a core busy, and what else the machine does decides the rest
def test_another_process_that_computes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    every = module.cores()
    if every == 1 or not reading().by_core:
        pytest.skip("one core, or a system that does not say what its cores do")
    monkeypatch.setattr(module, "WATCHED_SECONDS", 1.0)
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(every)]
    try:
        assert free_cores() == 1
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
