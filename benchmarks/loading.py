"""How fast images come, beside torchvision's ImageFolder with Pillow; and what indexes and epochs cost.

    python benchmarks/loading.py --photos FOLDER_OR_TAR --out benchmarks/loading.json
    python benchmarks/loading.py --names 1000000 --tar-mib 1024 --epochs 20
    python benchmarks/loading.py --small-tar-mib 1024
    python benchmarks/loading.py --photos FOLDER_OR_TAR --end-to-end

The loader alone: random crops of 224 pixels with a flip, as uint8 [3 224 224], one process, images per
second of processor time, all kinds of data in turns: the photographs as they are, and packed by `unmask pack` to 256
pixels. Processes beside threads, for the same batches. Then the index of a large tar, of one with a million small members, of many file names
(hard links in a temporary folder), the memory of two loading processes over many epochs, and the share of a training run that
is spent waiting for images.
"""

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from unmask.contracts import Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.kinds import find_source
from unmask.data.loader import SetAside, Wanted, batches
from unmask.data.pack import Packer
from unmask.data.pack_manifest import Packing
from unmask.data.views import RandomCrop

SIDE = 224
SMALLEST_SHARE = 0.2
Pass = Callable[[list[int]], None]


def unpack_photos(source: Path, root: Path) -> Path:
    """The photographs in class folders, as a tar and as Parquet, all of the same bytes."""
    folder = root / "folder"
    images = find_source(str(source)).open("train")
    rows: list[dict[str, Any]] = []
    with tarfile.open(root / "photos.tar", "w") as tar:
        for position in range(len(images)):
            data = images._store.read(int(images._rows[position]))  # type: ignore[attr-defined]
            name = f"{position % 10}/{position:05}.jpg"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            rows.append({"bytes": data, "path": name})
    pq.write_table(pa.table({"image": rows}), root / "photos.parquet")
    return folder


def pack_photos(folder: Path, root: Path) -> tuple[Path, Path]:
    """The photographs packed to 256 pixels, and the packed images as a folder of files."""
    sources = {"train": find_source(str(folder)).open("train")}
    packer = Packer(root / "packed", Packing(), sources, workers=0, max_set_aside=0.05)
    for _ in packer.run(Event()):
        pass
    packed, small = find_source(str(root / "packed")).open("train"), root / "small"
    for position in range(len(packed)):
        file = small / packed.name(position)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(packed.encoded(position))  # type: ignore[attr-defined]
    return root / "packed", small


def torchvision_pass(folder: Path) -> Pass:
    """ImageFolder with Pillow, its random crop (bicubic) and flip, and uint8 tensors."""
    crop = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                SIDE, (SMALLEST_SHARE, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )
    images = ImageFolder(str(folder), crop)

    def run(order: list[int]) -> None:
        for start in range(0, len(order), 32):
            torch.stack([images[i][0] for i in order[start : start + 32]])

    return run


def unmask_pass(data: Path) -> Pass:
    """Our loader's own work: decode, crop, flip, collate."""
    source = find_source(str(data)).open("train")
    viewed = CpuFeed(source, RandomCrop(smallest_share=SMALLEST_SHARE), Size(SIDE, SIDE), seed=0)

    def run(order: list[int]) -> None:
        for start in range(0, len(order), 32):
            keys = [(0, i) for i in order[start : start + 32]]
            viewed.load(Wanted(keys, 0, Size(SIDE, SIDE)), [])

    return run


def loader_alone(photos: Path, rounds: int) -> dict[str, Any]:
    """Images per second of processor time of every kind of data, in turns."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = unpack_photos(photos, root)
        packed, small = pack_photos(folder, root)
        passes = {
            "torchvision ImageFolder, Pillow": torchvision_pass(folder),
            "unmask, folder": unmask_pass(folder),
            "unmask, tar": unmask_pass(root / "photos.tar"),
            "unmask, Parquet": unmask_pass(root / "photos.parquet"),
            "unmask, packed": unmask_pass(packed),
            "torchvision ImageFolder, Pillow, the packed images as files": torchvision_pass(small),
        }
        count = len(list(folder.rglob("*.jpg")))
        seconds: dict[str, list[float]] = {each: [] for each in passes}
        for number in range(rounds + 1):
            order = np.random.default_rng(number).permutation(count).tolist()
            turn = number % len(passes)
            for each in list(passes)[turn:] + list(passes)[:turn]:
                start = process_time()
                passes[each](order)
                if number:
                    seconds[each].append(process_time() - start)
    rates = {each: [count / s for s in spent] for each, spent in seconds.items()}
    base = seconds["torchvision ImageFolder, Pillow"]
    return {
        each: {
            "images_per_cpu_second": round(statistics.median(rates[each]), 1),
            "least": round(min(rates[each]), 1),
            "most": round(max(rates[each]), 1),
            "times_torchvision": round(
                statistics.median(b / s for b, s in zip(base, seconds[each], strict=True)), 2
            ),
        }
        for each in passes
    }


def processes_or_threads(photos: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of processor time and of wall clock an image, by who loads, in turns."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = unpack_photos(photos, root)
        packed, _ = pack_photos(folder, root)
        loads: dict[str, Callable[[], int]] = {}
        for kind, data in (("folder", folder), ("packed", packed)):
            for workers in (1, 2):
                loads[f"{kind}, {workers} processes"] = lambda d=data, w=workers: by_processes(d, w)
                loads[f"{kind}, {workers} threads"] = lambda d=data, w=workers: by_threads(d, w)
        spent: dict[str, list[tuple[float, float]]] = {each: [] for each in loads}
        for number in range(rounds + 1):
            for each in loads:
                processor, wall = cpu_seconds(), perf_counter()
                count = loads[each]()
                if number:
                    spent[each].append(
                        ((cpu_seconds() - processor) / count, (perf_counter() - wall) / count)
                    )
    return {
        each: {
            "cpu_ms": round(1e3 * statistics.median(c for c, _ in figures), 2),
            "wall_ms": round(1e3 * statistics.median(w for _, w in figures), 2),
        }
        for each, figures in spent.items()
    }


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def by_processes(data: Path, workers: int) -> int:
    """Load every image once with the package's own loader; returns their number."""
    viewed = viewed_photos(data)
    with tempfile.TemporaryDirectory() as name:
        stream = batches(
            viewed,
            batch_size=32,
            first_step=0,
            steps=len(viewed.source) // 32,
            workers=workers,
            device=torch.device("cpu"),
            set_aside=SetAside(Path(name, "set_aside.csv"), len(viewed.source), 0.05),
        )
        return sum(len(batch.images) for batch in stream)


def by_threads(data: Path, threads: int) -> int:
    """The same, by threads that decode and crop whole batches ahead."""
    viewed = viewed_photos(data)
    starts = range(0, len(viewed.source) - 31, 32)

    def loaded(start: int) -> int:
        keys = [(0, i) for i in range(start, start + 32)]
        return len(viewed.load(Wanted(keys, 0, Size(SIDE, SIDE)), []).images)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(loaded, starts))


def viewed_photos(data: Path) -> CpuFeed:
    """Crops of 224 pixels."""
    source = find_source(str(data)).open("train")
    return CpuFeed(source, RandomCrop(smallest_share=SMALLEST_SHARE), Size(SIDE, SIDE), seed=0)


def share_of_waiting(photos: Path) -> dict[str, Any]:
    """What `unmask pretrain` logs of its waiting for images: mae-ti16 at 224 pixels, on all cores, from two kinds of data."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = unpack_photos(photos, root)
        packed, _ = pack_photos(folder, root)
        found: dict[str, Any] = {}
        for kind, data in (("folder", folder), ("packed", packed)):
            for workers in (0, 1):
                out = root / f"{kind}-{workers}"
                words = [
                    "pretrain",
                    data,
                    "--recipe",
                    "mae-ti16",
                    "--batch-size",
                    64,
                    "--epochs",
                    2,
                ]
                command = [sys.executable, "-m", "unmask", *map(str, words)]
                settings = ["--workers", str(workers), "--out", str(out)]
                subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
                lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
                waiting = statistics.mean(line["waiting"] for line in lines[2:])
                found[f"{kind}, {workers} loading processes"] = {
                    "waiting": round(waiting, 4),
                    "images_per_second": round(
                        statistics.median(line["images_per_second"] for line in lines[2:]), 1
                    ),
                }
    return found


def index_of_a_tar(mebibytes: int) -> dict[str, Any]:
    """Seconds to index a large tar of 100 kB images for the first time, and again."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        tar = Path(name, "x.tar")
        data = picture(256, quality=95)
        data += b"\0" * (100_000 - len(data))  # decoders stop at the end mark
        with tarfile.open(tar, "w") as file:
            for number in range(mebibytes * 2**20 // 101_000):
                member = tarfile.TarInfo(f"{number % 100}/{number:06}.jpg")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
        return {"mib": round(tar.stat().st_size / 2**20), **first_and_again(tar)}


def index_of_a_tar_of_small_members(mebibytes: int) -> dict[str, Any]:
    """Seconds and memory to index a tar of 1 kB images, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        tar = Path(name, "x.tar")
        data = picture(16)
        data += bytes(1000 - len(data))
        count = mebibytes * 2**20 // 1536
        with tar.open("wb") as file:
            for number in range(count):
                member = tarfile.TarInfo(f"{number % 100}/{number:07}.jpg")
                member.size = len(data)
                file.write(member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
            file.write(bytes(1024))
        found: dict[str, Any] = {"mib": round(tar.stat().st_size / 2**20)}
        for time in ("first", "again"):
            done = subprocess.run(
                [sys.executable, __file__, "--open", str(tar)],
                env={**os.environ, "XDG_CACHE_HOME": f"{name}/cache"},
                capture_output=True,
                text=True,
                check=True,
            )
            found |= {f"{time}_{key}": value for key, value in json.loads(done.stdout).items()}
        return found


def open_once(data: Path) -> dict[str, Any]:
    """Seconds to open a set, and what memory that takes at most, MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor = perf_counter(), process_time()
    images = len(find_source(str(data)).open("train"))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "images": images,
        "seconds": round(perf_counter() - start, 2),
        "cpu_seconds": round(process_time() - processor, 2),
        "added_mib": (after - before) // 1024,
    }


def index_of_names(count: int) -> dict[str, Any]:
    """Seconds to scan a folder of hard links for the first time, and again."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        root = Path(name, "images")
        for folder in range(100):
            (root / f"{folder:03}").mkdir(parents=True)
            original = root / f"{folder:03}" / "00000000.jpg"
            original.write_bytes(picture(64))
            for number in range(1, count // 100):
                os.link(original, root / f"{folder:03}" / f"{number:08}.jpg")
        found = first_and_again(root)
        (root / "000" / "00000001.jpg").unlink()
        start = perf_counter()
        left = len(find_source(str(root)).open("train"))
        changed = {"one_removed_seconds": round(perf_counter() - start, 2), "left": left}
        shutil.rmtree(root)
    return {**found, **changed}


def first_and_again(data: Path) -> dict[str, Any]:
    """Seconds of the first and the second opening."""
    seconds: list[float] = []
    for _ in range(2):
        start = perf_counter()
        images = len(find_source(str(data)).open("train"))
        seconds.append(round(perf_counter() - start, 2))
    return {"images": images, "first_seconds": seconds[0], "again_seconds": seconds[1]}


def picture(side: int, quality: int = 75) -> bytes:
    """A JPEG of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def memory_over_epochs(epochs: int, count: int = 60_000) -> dict[str, Any]:
    """Memory of this process and two loading processes, MiB, at the end of every epoch."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "images")
        data = picture(32)
        for folder in range(10):
            (root / str(folder)).mkdir(parents=True)
            for number in range(count // 10):
                (root / str(folder) / f"{number:05}.jpg").write_bytes(data)
        source = find_source(str(root)).open("train")
        size = 500
        stream = batches(
            CpuFeed(source, RandomCrop(), Size(32, 32), seed=0),
            batch_size=size,
            first_step=0,
            steps=epochs * count // size,
            workers=2,
            device=torch.device("cpu"),
            set_aside=SetAside(Path(name, "set_aside.csv"), count, 0),
        )
        sizes: list[int] = []
        for step, _ in enumerate(stream, 1):
            if step % (count // size) == 0:
                sizes.append(own_memory())
                print(f"epoch {len(sizes)}: {sizes[-1]} MiB", file=sys.stderr, flush=True)
    return {"images": count, "epochs": epochs, "mib": sizes}


def own_memory() -> int:
    """MiB of this process and its children that belong to no file, shared pages counted once."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
    total = 0
    for process in [os.getpid(), *map(int, found.stdout.split())]:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return total // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="photographs, for the loader alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tar-mib", type=int, help="size of a tar to index")
    parser.add_argument("--small-tar-mib", type=int, help="size of a tar of 1 kB images to index")
    parser.add_argument("--open", type=Path, help="open this set and print what that costs")
    parser.add_argument("--threads", action="store_true", help="processes or threads, on --photos")
    parser.add_argument("--end-to-end", action="store_true", help="the waiting of runs on --photos")
    parser.add_argument("--names", type=int, help="number of files to scan")
    parser.add_argument("--epochs", type=int, help="epochs to watch the memory for")
    parser.add_argument("--out", type=Path, help="where to add the figures, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    if args.open:
        print(json.dumps(open_once(args.open)))
        return
    if args.photos and args.end_to_end:
        figures["end_to_end"] = share_of_waiting(args.photos)
    elif args.photos and args.threads:
        figures["processes_or_threads"] = processes_or_threads(args.photos, args.rounds)
    elif args.photos:
        figures["loader_alone"] = loader_alone(args.photos, args.rounds)
    if args.small_tar_mib:
        figures["small_members"] = index_of_a_tar_of_small_members(args.small_tar_mib)
    if args.tar_mib:
        figures["tar_index"] = index_of_a_tar(args.tar_mib)
    if args.names:
        figures["names"] = index_of_names(args.names)
    if args.epochs:
        figures["memory"] = memory_over_epochs(args.epochs)
    print(json.dumps(figures, indent=1))
    if args.out:
        known = json.loads(args.out.read_text()) if args.out.exists() else {}
        args.out.write_text(json.dumps({**known, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
