"""How long a command takes beyond importing torch, in turns with it: wall and CPU seconds of whole processes.

    python benchmarks/starting.py --turns 7 -- search VECTORS PICTURE --k 3

What follows the two dashes is a command line of unmask, on a small folder. Medians of turns that alternate, so that other work
on the machine changes little.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import NamedTuple


class Spent(NamedTuple):
    """What a process took."""

    wall_s: float
    cpu_s: float


def spent(command: list[str]) -> Spent:
    """Run a command to its end."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(wall, cpu)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("words", nargs="+")
    args = parser.parse_args()
    calls = {
        "import torch": [sys.executable, "-c", "import torch"],
        f"unmask {args.words[0]}": [sys.executable, "-m", "unmask", *args.words],
    }
    turns = [{name: spent(call) for name, call in calls.items()} for _ in range(args.turns)]
    torch, command = ([turn[name] for turn in turns] for name in calls)
    beyond = [
        Spent(c.wall_s - t.wall_s, c.cpu_s - t.cpu_s) for t, c in zip(torch, command, strict=True)
    ]
    for name, values in (*zip(calls, (torch, command), strict=True), ("beyond torch", beyond)):
        medians = {
            field: statistics.median(getattr(one, field) for one in values)
            for field in Spent._fields
        }
        print(name, json.dumps({field: round(value, 2) for field, value in medians.items()}))


if __name__ == "__main__":
    main()
