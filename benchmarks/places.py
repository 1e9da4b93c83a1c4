"""What places cost: embedding a map, in seconds and memory per square kilometre, and one query on many tiles beside its forward passes.

    python benchmarks/places.py --km2 10 --out benchmarks/results/places.json

The map is drawn strip by strip, 0.3 m a pixel, and cut into tiles of 224 pixels that overlap by half; the encoder has random weights.
The query is a picture of 12 million pixels on 100,000 tiles, in eight directions and three sizes; forward passes are left out. Memory is
the largest resident size of the process that embeds.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from unmask.commands import embed
from unmask.places.field import peaks_of
from unmask.places.grid import grids_of
from unmask.places.locating import Beliefs, field_for
from unmask.places.opened import OpenedPlaces
from unmask.traits import Places

METRES, SIDE, STRIP = 0.3, 224, 256
TILES, WIDTH, TURNS = (250, 400), 128, 8


def write_map(path: Path, pixels: int) -> None:
    """A noisy GeoTIFF in UTM, written by strips of rows."""
    tags: list[Any] = [
        (33550, 12, 3, (METRES, METRES, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 250_000.0, 2_680_000.0, 0.0), True),
        (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32651), True),
    ]
    random = np.random.default_rng(0)

    def tiles() -> Any:
        across = -(-pixels // STRIP)
        for _ in range(across**2):
            coarse = random.integers(0, 256, (17, 17, 3)).astype(np.uint8)
            yield coarse.repeat(16, 0).repeat(16, 1)[:STRIP, :STRIP]

    tifffile.imwrite(
        path, tiles(), shape=(pixels, pixels, 3), dtype=np.uint8, tile=(STRIP, STRIP), photometric="rgb",
        extratags=tags, metadata=None,
    )  # fmt: skip


def peak() -> int:
    """The largest resident size of this process so far, in bytes (Linux; `getrusage` would count the process that started it)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(
        next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    )


def embedded(encoder: str, map_: str, out: str, metres: str, answer: Any) -> None:
    """In a process of its own: embed, and send the seconds and the largest size."""
    started, before = time.perf_counter(), time.process_time()
    words = [
        "--tile-metres",
        metres,
        "--out",
        out,
        "--threads",
        "1",
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    embed.main([encoder, map_, *words])
    answer.put((time.perf_counter() - started, time.process_time() - before, peak()))


def embedding(root: Path, km2: float) -> dict[str, Any]:
    """Seconds and memory per square kilometre, and for two maps, so that a growing memory would be seen."""
    import timm

    import unmask

    torch.manual_seed(0)
    weights = root / "encoder.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), weights)
    context = multiprocessing.get_context("spawn")
    rows: list[dict[str, Any]] = []
    for size in (km2 / 4, km2):
        pixels = round((size * 1e6) ** 0.5 / METRES)
        write_map(root / "map.tif", pixels)
        answer = context.Queue()
        words = (
            str(weights),
            str(root / "map.tif"),
            str(root / f"out-{size}"),
            f"{SIDE * METRES:.1f}",
            answer,
        )
        process = context.Process(target=embedded, args=words)
        process.start()
        wall, cpu, memory = answer.get()
        process.join()
        rows.append(
            {
                "km2": size,
                "seconds": wall,
                "cpu_seconds": cpu,
                "peak_bytes": memory,
                "map_bytes": 3 * pixels**2,
            }
        )
    large = rows[-1]
    return {
        "maps": rows,
        "cpu_seconds_per_km2": large["cpu_seconds"] / large["km2"],
        "extrapolated_cpu_seconds_100_km2": 100 * large["cpu_seconds"] / large["km2"],
        "unmask": unmask.__version__,
    }


def searching() -> dict[str, Any]:
    """The seconds of a query on 100,000 tiles beyond its forward passes."""
    rows, columns = TILES
    row, column = (index.ravel() for index in np.indices(TILES))
    degrees = np.stack([120 + column * 33.6 / 101_500, 24.2 - row * 33.6 / 110_770], 1)
    places = Places(degrees, np.full(rows * columns, 67.2), np.stack([row, column], 1))
    random = torch.Generator().manual_seed(0)
    matrix = torch.nn.functional.normalize(
        torch.randn(rows * columns, WIDTH, generator=random), dim=1
    )
    passed: list[int] = []

    def encode(images: Any) -> Any:
        passed.append(len(images))
        return matrix[: len(images)]

    opened: Any = _Opened(grids_of(places), matrix, encode)
    image = torch.randint(0, 256, (3, 3000, 4000), generator=random, dtype=torch.uint8)
    best, cpu = float("inf"), float("inf")
    for _ in range(5):
        started, used = time.perf_counter(), time.process_time()
        field = field_for(opened, image, Beliefs(None, None, TURNS))
        peaks_of(field, 3)
        best = min(best, time.perf_counter() - started)
        cpu = min(cpu, time.process_time() - used)
    return {
        "tiles": rows * columns,
        "width": WIDTH,
        "directions": TURNS,
        "sizes": 3,
        "pieces": passed[0],
        "seconds": best,
        "cpu_seconds": cpu,
    }


class _Opened:
    """What locating reads of a folder of vectors, without the folder."""

    side = SIDE
    mean = torch.full((3,), 120.0)
    deviation = torch.full((3,), 40.0)
    relit = OpenedPlaces.relit

    def __init__(self, grids: Any, matrix: Any, encode: Any) -> None:
        self.grids, self.matrix, self.encode = grids, matrix, encode


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--km2", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "machine": f"{os.cpu_count()} cores",
            "load": os.getloadavg()[0],
            "query": searching(),
            "embedding": embedding(Path(folder), args.km2),
        }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
