"""How many CPU cores other work leaves free, watched for a moment."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unmask.training.cgroups import CpuGroup, cpu_groups
from unmask.training.hardware import allowed_cores, cores

WATCHED_SECONDS = 0.3
"""How long the cores are watched."""

_NOISE = 0.25  # cores: every system does a little work; a core that is idle for the rest of the time is free


class Reading(NamedTuple):
    """Counters of CPU time, all of them since some moment in the past."""

    clock: float
    """Seconds."""
    own: float
    """CPU seconds of this process."""
    by_core: Mapping[int, tuple[int, int]]
    """Ticks of each core that this process may use: idle ones, and all. Empty where the system does not say."""
    groups: Sequence[CpuGroup]
    """The control groups of this process that have a limit."""


def free_cores() -> int:
    """Cores that are free now, at least 1 and at most `cores()`.

    Two threads on one free core stall each other: at the end of every parallel region, one waits for the other, which
    waits for the core. So a computation should not start more threads than this.
    """
    every = cores()
    if every == 1:
        return 1
    before = reading()
    time.sleep(WATCHED_SECONDS)
    return free_between(before, reading(), every)


def reading(root: Path = Path("/")) -> Reading:
    """The counters now. `root` is the root of the file system."""
    return Reading(time.perf_counter(), time.process_time(), _ticks(root), cpu_groups(root))


def free_between(before: Reading, after: Reading, every: int) -> int:
    """The cores of `every` that were free between two readings, without counting the work of this process."""
    seconds = after.clock - before.clock
    own = (after.own - before.own) / seconds
    limits: list[float] = []
    if after.by_core:
        limits.append(own + sum(_idle(before, after, core) for core in after.by_core))
    for old, new in zip(before.groups, after.groups, strict=False):
        limits.append(new.whole_cores - (new.used_seconds - old.used_seconds) / seconds + own)
    free = min(limits, default=float(every))
    return max(1, min(every, int(free + _NOISE)))


def _idle(before: Reading, after: Reading, core: int) -> float:
    """The share of the time that a core was idle; 1 if its counters stand still."""
    idle, total = (
        new - old
        for new, old in zip(after.by_core[core], before.by_core.get(core, (0, 0)), strict=True)
    )
    return idle / total if total > 0 else 1.0


def _ticks(root: Path) -> dict[int, tuple[int, int]]:
    """Idle and all ticks of each core that this process may use, from lines such as `cpu0 user nice system idle iowait ...`."""
    allowed = allowed_cores()
    try:
        lines = (root / "proc/stat").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    if allowed is None:
        return {}
    ticks: dict[int, tuple[int, int]] = {}
    for line in lines:
        name, *numbers = line.split()
        core = name.removeprefix("cpu")
        if not name.startswith("cpu") or not core.isdecimal() or int(core) not in allowed:
            continue
        # the numbers after the eighth are parts of the first two
        values = [int(number) for number in numbers[:8] if number.isdecimal()]
        if len(values) >= 5:
            ticks[int(core)] = (values[3] + values[4], sum(values))  # waiting for a disk is idle
    return ticks
