"""How well photographs are found on a map: raw pixels, random weights, masked pretraining on the map, and place training after it.

    python studies/places.py MAP.jpg --queries PHOTOS.csv --ground-size 165 --tile-metres 60 --minutes 3 --seeds 1 --out studies/places

For each seed, an encoder (4 blocks of 128, patches of 8, 64 pixels) is pretrained on the map (mae-ti4), and trained for places from
there (place-ti16), each for --minutes or --epochs. Both embed the map in tiles that overlap by 80 %, and all arms locate the same photographs:
`unmask evaluate PLACES --queries`. OUT.csv gets every score.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ENCODER = (
    *("--encoder.embed-dim", "128", "--encoder.depth", "4", "--encoder.num-heads", "4"),
    *("--encoder.patch-size", "8", "--image-size", "64", "--batch-size", "64"),
)
OVERLAP = "0.8"


def unmask(*words: object) -> None:
    """Run a command, whose output is passed on."""
    subprocess.run([sys.executable, "-m", "unmask", *map(str, words)], check=True)


def trained(args: argparse.Namespace, root: Path, seed: int) -> dict[str, Path]:
    """The runs of a seed; those that are there already are kept."""
    masked, places = root / f"masked-{seed}", root / f"place-{seed}"
    cut = ("--tile-metres", args.tile_metres, "--tile-overlap", OVERLAP)
    length = ("--epochs", args.epochs) if args.epochs else ("--minutes", args.minutes)
    how = (*cut, *ENCODER, *length, "--seed", seed, "--threads", "1", "--no-report")
    if not masked.exists():
        unmask("pretrain", args.map, "--recipe", "mae-ti4", *how, "--out", masked)
    if not places.exists():
        start = ("--init", masked, "--recipe", "place-ti16", "--lr", "1e-3")
        unmask("pretrain", args.map, *start, *how, "--out", places)
    return {"masked pretraining on the map": masked, "then place training": places}


def evaluated(
    args: argparse.Namespace, root: Path, run: Path, controls: bool
) -> list[dict[str, Any]]:
    """The scores of a run, and of the controls if they are asked for."""
    vectors, scores = root / f"vectors-{run.name}", root / f"{run.name}.json"
    cut = ("--tile-metres", args.tile_metres, "--tile-overlap", OVERLAP)
    unmask("embed", run, args.map, "--out", vectors, *cut, "--threads", "1")
    which = () if controls else ("--control", "none")
    unmask(
        "evaluate", vectors, "--queries", args.queries, "--ground-size", args.ground_size, "--threads", "1",
        "--headings", args.headings, "--out", scores, *which,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(scores.read_text())["scores"]
    return found


def main() -> None:
    """Train, evaluate, write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("map")
    parser.add_argument("--queries", required=True)
    parser.add_argument("--ground-size", type=float, required=True)
    parser.add_argument("--tile-metres", type=float, default=60.0)
    parser.add_argument("--headings", choices=("auto", "none"), default="auto")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--epochs", type=float, help="in place of --minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/places"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for number, (name, run) in enumerate(trained(args, args.runs, seed).items()):
            for one in evaluated(args, args.runs, run, controls=number == 0):
                arm = name if one["arm"] == "the encoder" else one["arm"]
                if arm == "chance" and number > 0:
                    continue
                flat = {**one["within"], **one["recall"]}
                rest = {key: one[key] for key in ("median", "mean", "coverage", "false_fixes")}
                rows.append({"seed": seed, "arm": arm, **flat, **rest})
    with args.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
