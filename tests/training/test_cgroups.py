"""Limits of containers and jobs, read from a made tree of the kernel's files."""

from pathlib import Path

import pytest
import torch

from unmask.training import hardware
from unmask.training.cgroups import cpu_limit, memory_left
from unmask.training.hardware import cores, limit_threads, memory_available

GIB = 2**30
V2 = "31 23 0:28 / {folder} rw - cgroup2 cgroup2 rw\n"
V1 = "35 31 0:32 {shown} {folder} rw,relatime - cgroup cgroup rw,{controller}\n"
V1_UNLIMITED = 9223372036854771712


def write(root: Path, files: dict[str, object]) -> Path:
    """A tree of files below a root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def group(folder: str, limit: object, used: int, **stat: int) -> dict[str, object]:
    """The files of a group of version 2."""
    lines = "\n".join(f"{name} {size}" for name, size in stat.items())
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": used,
        f"{folder}/memory.stat": lines,
    }


def test_the_page_cache_is_not_in_use(tmp_path: Path) -> None:
    full = group(
        "sys/fs/cgroup",
        8 * GIB,
        int(7.9 * GIB),
        anon=GIB,
        file=7 * GIB,
        active_file=3 * GIB,
        inactive_file=int(3.9 * GIB),
        shmem=int(0.1 * GIB),
    )
    root = write(tmp_path, {"proc/self/cgroup": "0::/", **full})
    assert memory_left(root) == pytest.approx(7 * GIB, abs=4)


def test_shared_memory_is_in_use(tmp_path: Path) -> None:
    """Pages of /dev/shm are among `file`, and the kernel cannot drop them."""
    root = write(tmp_path, group("sys/fs/cgroup", 8 * GIB, 7 * GIB, file=6 * GIB, shmem=5 * GIB))
    assert memory_left(root) == 2 * GIB


def test_the_smallest_limit_up_to_the_root_holds(tmp_path: Path) -> None:
    """Slurm puts a limit on the job, not on the task that runs in it."""
    job = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7"
    files: dict[str, object] = {
        "proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0",
        "proc/self/mountinfo": V2.format(folder="/sys/fs/cgroup"),
        **group(f"{job}/step_0/user/task_0", "max", GIB),
        **group(f"{job}/step_0", 30 * GIB, GIB),
        **group(job, 4 * GIB, 2 * GIB, inactive_file=GIB),
        f"{job}/cpu.max": "150000 100000",
        f"{job}/step_0/cpu.max": "max 100000",
    }
    root = write(tmp_path, files)
    assert memory_left(root) == 3 * GIB
    assert cpu_limit(root) == 1.5
    write(root, {f"{job}/step_0/memory.high": 2 * GIB})
    assert memory_left(root) == GIB, "beyond memory.high a process is slowed down until it frees"


def test_version_1_and_both_together(tmp_path: Path) -> None:
    memory, cpu = "sys/fs/cgroup/memory/slurm/uid_1/job_7", "sys/fs/cgroup/cpu,cpuacct/slurm"
    files: dict[str, object] = {
        "proc/self/cgroup": "9:memory:/slurm/uid_1/job_7/step_0\n8:cpu,cpuacct:/slurm\n0::/",
        "proc/self/mountinfo": V1.format(
            shown="/", folder="/sys/fs/cgroup/memory", controller="memory"
        )
        + V1.format(shown="/", folder="/sys/fs/cgroup/cpu,cpuacct", controller="cpu,cpuacct")
        + V2.format(folder="/sys/fs/cgroup/unified"),
        f"{memory}/step_0/memory.limit_in_bytes": V1_UNLIMITED,
        f"{memory}/step_0/memory.usage_in_bytes": GIB,
        f"{memory}/memory.limit_in_bytes": 16 * GIB,
        f"{memory}/memory.usage_in_bytes": 12 * GIB,
        # without "total_", the figures leave out the groups below
        f"{memory}/memory.stat": f"inactive_file 5\ntotal_inactive_file {2 * GIB}\ntotal_active_file {GIB}",
        f"{cpu}/cpu.cfs_quota_us": 400000,
        f"{cpu}/cpu.cfs_period_us": 100000,
    }
    root = write(tmp_path, files)
    assert memory_left(root) == 7 * GIB
    assert cpu_limit(root) == 4.0
    write(root, {f"{cpu}/cpu.cfs_quota_us": -1, f"{memory}/memory.limit_in_bytes": V1_UNLIMITED})
    assert memory_left(root) is None
    assert cpu_limit(root) is None


@pytest.mark.parametrize("shown", ["/docker/abc", "/", "/.."])
def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path, shown: str) -> None:
    """The names in /proc/self/cgroup may be those outside of the container, where no such folder is."""
    mount = V1.format(shown=shown, folder="/sys/fs/cgroup/memory", controller="memory")
    files: dict[str, object] = {
        "proc/self/cgroup": "4:memory:/docker/abc",
        "proc/self/mountinfo": mount,
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 3 * GIB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB,
    }
    assert memory_left(write(tmp_path, files)) == 2 * GIB


def test_a_hierarchy_that_is_mounted_elsewhere(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "proc/self/cgroup": "0::/job",
        "proc/self/mountinfo": "nonsense\n" + V2.format(folder="/cgroups"),
        **group("cgroups/job", 3 * GIB, GIB),
        "cgroups/job/cpu.max": "200000 100000",
    }
    root = write(tmp_path, files)
    assert memory_left(root) == 2 * GIB
    assert cpu_limit(root) == 2.0


@pytest.mark.parametrize(
    "files",
    [
        {},
        group("sys/fs/cgroup", "max", GIB),
        group("sys/fs/cgroup", "eight", GIB),
        group("sys/fs/cgroup", -1, GIB),
        {"sys/fs/cgroup/memory.max": GIB},
        {"sys/fs/cgroup/cpu.max": "max 100000"},
        {"sys/fs/cgroup/cpu.max": "0 0"},
        {"sys/fs/cgroup/cpu.max": "1"},
        {"proc/self/cgroup": "\n::\n4:memory\nabc", "proc/self/mountinfo": " - \n - cgroup2"},
    ],
)
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, files: dict[str, object]) -> None:
    root = write(tmp_path, files)
    assert memory_left(root) is None
    assert cpu_limit(root) is None


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    assert memory_left(write(tmp_path, group("sys/fs/cgroup", GIB, 2 * GIB))) == 0


@pytest.mark.parametrize(("quota", "expected"), [(0.2, 1), (1.0, 1), (1.5, 2), (99.0, 4)])
def test_cores_are_those_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(hardware, "cpu_limit", lambda: quota)
    assert cores() == expected
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        limit_threads()
        assert torch.get_num_threads() == min(3, expected)
    finally:
        torch.set_num_threads(threads)


def test_memory_is_the_least_of_machine_groups_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(hardware, "memory_left", lambda: 5 * 2**20)
    assert memory_available(cpu) == 5 * 2**20
    monkeypatch.setattr(hardware, "_address_space_left", lambda: 4 * 2**20)
    assert memory_available(cpu) == 4 * 2**20
