"""Compare what `unmask pretrain` or `unmask finetune` expects before its first step with what it then takes.

    python benchmarks/plan.py --out benchmarks/plan.json
    python benchmarks/plan.py --dense --threads 1 --out benchmarks/plan-dense.json

Each size is a run of its own in a fresh process, on random pictures: time of a step (median of the log, the first two steps
left out) and peak memory of the process (of pretraining also of its loading processes). With --dense, segmentation and
detection, without loading processes, to the last step of training.
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

# (recipe, pixels of the pictures, batch, steps, kind of annotations)
DENSE = [
    ("segment-ti8", 160, 8, 8, "maps"),
    ("segment-ti16", 224, 8, 8, "maps"),
    ("segment-s16", 224, 4, 8, "maps"),
    ("detect-mini", 256, 4, 8, "coco"),
    ("detect-ti16", 320, 2, 8, "coco"),
    ("detect-b16", 512, 1, 5, "coco"),
]


def make_pictures(folder: Path, side: int, count: int) -> None:
    """Smooth random pictures: noise at an eighth of the size, enlarged."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=90)


def annotate(root: Path, side: int, count: int, kind: str) -> None:
    """A class map of eight squares beside each picture, or eight objects with outlines."""
    random = np.random.default_rng(1)
    corners = (
        random.integers(0, side // 2, (count, 8, 2)),
        random.integers(8, side // 2, (count, 8, 2)),
    )
    (root / "masks").mkdir()
    objects: list[dict[str, Any]] = []
    for number, (starts, sides) in enumerate(zip(*corners, strict=True)):
        classes = np.zeros((side, side), np.uint8)
        for place, ((x, y), (width, height)) in enumerate(
            zip(starts.tolist(), sides.tolist(), strict=True)
        ):
            classes[y : y + height, x : x + width] = place % 3
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            box = {"bbox": [x, y, width, height], "segmentation": [outline], "iscrowd": 0}
            one = {"id": len(objects) + 1, "image_id": number + 1, "category_id": place % 3 + 1}
            objects.append(one | box)
        Image.fromarray(classes).save(root / "masks" / f"{number}.png")
    if kind == "coco":
        images = [
            {"id": n + 1, "file_name": f"{n}.jpg", "width": side, "height": side}
            for n in range(count)
        ]
        names = [{"id": n, "name": f"class {n}"} for n in (1, 2, 3)]
        content = {"images": images, "annotations": objects, "categories": names}
        (root / "instances.json").write_text(json.dumps(content))
        for file in (root / "masks").iterdir():
            file.unlink()
        (root / "masks").rmdir()


def dense(
    recipe: str, side: int, batch: int, steps: int, kind: str, threads: int
) -> dict[str, Any]:
    """One run of segmentation or detection: expected and measured."""
    count = 4 * batch
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "data").mkdir()
        make_pictures(scratch / "data" / "images", side, count)
        annotate(scratch / "data", side, count, kind)
        command = [
            *(sys.executable, "-m", "unmask", "finetune", "scratch", "data", "--recipe", recipe),
            *("--out", "run", "--batch-size", str(batch), "--image-size", str(side)),
            *("--epochs", str(steps / 3), "--threads", str(threads), "--workers", "0"),
            *("--save-every-minutes", "60", "--no-report"),
        ]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        log = [
            json.loads(line) for line in (scratch / "run" / "log.jsonl").read_text().splitlines()
        ]
    peak = max(line["peak_memory"] for line in log if "peak_memory" in line)
    return row_of(recipe, side, batch, steps, done.stdout, log, peak)


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
        lines = (scratch / "run" / "log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    return row_of(recipe, side, batch, steps, output, log, usage.ru_maxrss * 1024)


def row_of(
    recipe: str,
    side: int,
    batch: int,
    steps: int,
    output: str,
    log: list[dict[str, float]],
    peak: int,
) -> dict[str, Any]:
    """What a run said before its first step beside what its log says, and its peak memory in bytes."""
    found = re.search(r"\(([\d.]+) s a step\), ([\d.]+) (GiB|MiB)", output)
    assert found, output
    expected = float(found[2]) * (2**30 if found[3] == "GiB" else 2**20)
    seconds = [batch / line["images_per_second"] for line in log[2:] if "images_per_second" in line]
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
        "measured_memory_mib": round(peak / 2**20),
        "memory_ratio": round(expected / peak, 3),
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
    parser.add_argument("--dense", action="store_true", help="segmentation and detection")
    args = parser.parse_args()
    if args.dense:
        rows = [dense(*size, threads=args.threads) for size in DENSE]
    else:
        rows = [run(*size, threads=args.threads) for size in SIZES]
    print(table(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
