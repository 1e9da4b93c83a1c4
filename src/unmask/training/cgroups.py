"""The limits of memory and CPU time that the kernel enforces for this process: control groups, versions 1 and 2.

A container, a Slurm job or a systemd unit is a control group, and groups are nested, so the smallest limit from the own group
up to the root holds. The kernel's documentation: admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/memory.rst.
"""

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_UNLIMITED = 2**62  # bytes; more is no limit
_USUAL = {
    "": "sys/fs/cgroup",  # version 2
    "memory": "sys/fs/cgroup/memory",
    "cpu": "sys/fs/cgroup/cpu",
}
"""Where the groups of a controller usually are; they are tried even if the list of mounts cannot be read."""


class _Mount(NamedTuple):
    """Where a hierarchy of groups is visible."""

    folder: Path
    group: PurePosixPath
    """The group that the folder shows; in a container often not the root of the machine."""


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate within its groups; None without a limit.

    `root` is the root of the file system. Values that cannot be read are no limit.
    """
    left = [
        limit - used
        for folder in _groups("", root)
        for limit in (_number(folder / "memory.max"), _number(folder / "memory.high"))
        if limit is not None and (used := _used(folder, "memory.current", "")) is not None
    ]
    left += [
        limit - used
        for folder in _groups("memory", root)
        if (limit := _number(folder / "memory.limit_in_bytes")) is not None
        and (used := _used(folder, "memory.usage_in_bytes", "total_")) is not None
    ]
    return max(0, min(left)) if left else None


class CpuGroup(NamedTuple):
    """A control group with a limit of CPU time."""

    limit: float
    """CPUs' worth of time, such as 1.5."""
    used_seconds: float
    """CPU time of all its processes so far."""

    @property
    def whole_cores(self) -> int:
        """Cores that can work at the same time within the limit; the last one works for a part of the time."""
        return math.ceil(self.limit)


def cpu_groups(root: Path = Path("/")) -> list[CpuGroup]:
    """The groups of this process that limit CPU time, and whose use of it can be read."""
    groups = [
        (_text(folder / "cpu.max").split(), _usage(folder / "cpu.stat"))
        for folder in _groups("", root)
    ]
    groups += [
        (_quota(folder), _nanoseconds(folder / "cpuacct.usage")) for folder in _groups("cpu", root)
    ]
    return [
        CpuGroup(limit, used)
        for quota, used in groups
        if (limit := _ratio(quota)) is not None and used is not None
    ]


def cpu_limit(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the groups of this process get, such as 1.5; None without a limit."""
    quotas = [_text(folder / "cpu.max").split() for folder in _groups("", root)]
    quotas += [_quota(folder) for folder in _groups("cpu", root)]
    limits = [limit for quota in quotas if (limit := _ratio(quota)) is not None]
    return min(limits, default=None)


def _used(folder: Path, usage: str, prefix: str) -> int | None:
    """Bytes in use that the kernel cannot free: without the page cache, which it drops when memory gets tight.

    Both lists of file pages count as free, as in MemAvailable: reading images twice makes their pages active. Shared memory,
    such as /dev/shm, is in neither list, so it counts as used.
    """
    used = _number(folder / usage)
    if used is None:
        return None
    pairs = (line.split() for line in _text(folder / "memory.stat").splitlines())
    facts = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    names = (f"{prefix}active_file", f"{prefix}inactive_file")
    if not facts.keys() & set(names):  # some sandboxes write only the sum
        return max(0, used - facts.get("file", 0) + facts.get("shmem", 0))
    return max(0, used - sum(facts.get(name, 0) for name in names))


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the process's groups, from its own upwards; the controller is empty for version 2."""
    for mount in _mounts(controller, root):
        own = _below(_own_group(controller, root), mount.group)
        yield from (mount.folder / group for group in (own, *own.parents))


def _below(group: PurePosixPath, shown: PurePosixPath) -> PurePosixPath:
    """The path of a group from the one that a mount shows.

    In a container the names may be those outside of it, and then the own group is the one shown.
    """
    is_visible = group.is_relative_to(shown) and ".." not in group.parts
    return group.relative_to(shown) if is_visible else PurePosixPath()


def _own_group(controller: str, root: Path) -> PurePosixPath:
    """The group of this process in a hierarchy, from lines such as `4:memory:/slurm/job_7` or `0::/job_7`."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, names_and_path = line.partition(":")
        names, _, path = names_and_path.partition(":")
        if path.startswith("/") and controller in names.split(","):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _mounts(controller: str, root: Path) -> list[_Mount]:
    """Where a controller's hierarchy is mounted; version 2 has one hierarchy for all controllers."""
    mounts = [_Mount(root / _USUAL[controller], PurePosixPath("/"))]
    for line in _text(root / "proc/self/mountinfo").splitlines():
        # number, parent, device, group, folder, options ... - type, source, options
        place, _, kind = line.partition(" - ")
        place, kind = place.split(), kind.split()
        if len(place) < 5 or len(kind) < 3:
            continue
        is_wanted = kind[0] == "cgroup" and controller in kind[2].split(",")
        if is_wanted if controller else kind[0] == "cgroup2":
            folder = root / place[4].lstrip("/")
            mounts.append(_Mount(folder, PurePosixPath(place[3])))
    return list(dict.fromkeys(mounts))


def _quota(folder: Path) -> list[str]:
    """Microseconds of CPU time and of the period of a group of version 1."""
    return [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]


def _usage(statistics: Path) -> float | None:
    """Seconds of CPU time in the statistics of a group of version 2."""
    for line in _text(statistics).splitlines():
        name, _, used = line.partition(" ")
        if name == "usage_usec" and used.isdecimal():
            return int(used) / 1e6
    return None


def _nanoseconds(path: Path) -> float | None:
    """A file with nanoseconds, in seconds."""
    text = _text(path)
    return int(text) / 1e9 if text.isdecimal() else None


def _ratio(quota: list[str]) -> float | None:
    """Microseconds of CPU time divided by those of the period; None if there is no limit, written as max or -1."""
    if len(quota) != 2 or not all(part.isdecimal() for part in quota):
        return None
    time, period = map(int, quota)
    return time / period if time and period else None


def _number(path: Path) -> int | None:
    """The number in a file; None for "max", which version 1 writes as 2^63 less a page, and for all that is no number."""
    text = _text(path)
    number = int(text) if text.isdecimal() and len(text) < 20 else _UNLIMITED
    return number if number < _UNLIMITED else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
