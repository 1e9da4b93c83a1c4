"""Compare what `unmask pretrain` expects before its first step with what it then takes.

    python benchmarks/plan.py --out benchmarks/plan.json

Three sizes, each a run of its own in a fresh process, on random pictures: time of a step (median of the
log, the first two steps left out) and peak memory of the process (and of its loading processes).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# (recipe, pixels of the pictures, batch, steps)
SIZES = [
    ("mae-mini4", 32, 256, 12),
    ("mae-ti16", 224, 64, 8),
    ("mae-b16", 224, 16, 6),
]


def make_pictures(folder: Path, side: int, count: int) -> None:
    """Smooth random pictures: noise at an eighth of the size, enlarged."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=90)


def run(recipe: str, side: int, batch: int, steps: int, threads: int) -> dict[str, Any]:
    """One run: expected and measured."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        make_pictures(scratch / "images", side, 2 * batch)
        command = [
            *(sys.executable, "-m", "unmask", "pretrain", "images", "--recipe", recipe),
            *("--out", "run", "--batch-size", str(batch), "--epochs", str(steps / 2)),
            *("--threads", str(threads), "--save-every-minutes", "60"),
        ]
        process = subprocess.Popen(
            command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(output)
        log = (scratch / "run" / "log.jsonl").read_text().splitlines()
    found = re.search(r"\(([\d.]+) s a step\), ([\d.]+) (GiB|MiB)", output)
    assert found, output
    expected = float(found[2]) * (2**30 if found[3] == "GiB" else 2**20)
    seconds = [batch / json.loads(line)["images_per_second"] for line in log[2:]]
    measured = statistics.median(seconds)
    return {
        "recipe": recipe,
        "pixels": side,
        "batch": batch,
        "steps": steps,
        "expected_step_seconds": float(found[1]),
        "measured_step_seconds": round(measured, 3),
        "measured_spread": [round(min(seconds), 3), round(max(seconds), 3)],
        "time_ratio": round(float(found[1]) / measured, 3),
        "expected_memory_mib": round(expected / 2**20),
        "measured_memory_mib": round(usage.ru_maxrss / 1024),
        "memory_ratio": round(expected / (usage.ru_maxrss * 1024), 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| recipe | batch | step expected | measured (least to most) | ratio | memory expected | measured | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["measured_spread"]
        lines.append(
            f"| {row['recipe']} | {row['batch']} | {row['expected_step_seconds']:.2f} s "
            f"| {row['measured_step_seconds']:.2f} s ({low:.2f} to {high:.2f}) | {row['time_ratio']:.2f} "
            f"| {row['expected_memory_mib']:,} MiB | {row['measured_memory_mib']:,} MiB "
            f"| {row['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rows = [run(*size, threads=args.threads) for size in SIZES]
    print(table(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
