"""Two processes beside one: what sharing a batch costs on this machine.

    python benchmarks/ranks.py --out benchmarks/results/ranks.json

Each runs `unmask pretrain digits` with one thread a process, in turns: one process with half of the batch, one with
all of it, and two that share it, as copies (DDP) and in shards (FSDP2). Milliseconds a step are the median of the log.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def milliseconds(folder: Path, batch_size: int, words: list[str], start: list[str]) -> float:
    """Of a step, without the first second."""
    command = [
        *(sys.executable, *start, "-m", "unmask", "pretrain", "digits", "--recipe", "mae-digits"),
        *("--batch-size", str(batch_size), "--epochs", "40", "--threads", "1"),
        *("--workers", "0", "--out", str(folder), *words),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    later = lines[len(lines) // 4 :]
    return statistics.median(1000 * batch_size / line["images_per_second"] for line in later)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    arms: dict[str, tuple[int, list[str], list[str]]] = {
        "one, half of the batch": (asked.batch_size // 2, [], []),
        "one, all of it": (asked.batch_size, [], []),
        "two, copies (DDP)": (asked.batch_size, [], TORCHRUN),
        "two, shards (FSDP2)": (asked.batch_size, ["--shard"], TORCHRUN),
    }
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(asked.rounds):
        for name, (batch_size, words, start) in arms.items():
            with tempfile.TemporaryDirectory() as scratch:
                took = milliseconds(Path(scratch) / "run", batch_size, words, start)
            found[name].append(took)
            print(f"round {number + 1}: {name}: {took:.1f} ms a step", flush=True)
    medians = {name: round(statistics.median(times), 1) for name, times in found.items()}
    print(json.dumps(medians, indent=1))
    if asked.out:
        asked.out.write_text(
            json.dumps(
                {"host cores": os.cpu_count(), "rounds": found, "medians": medians}, indent=1
            )
        )


if __name__ == "__main__":
    main()
