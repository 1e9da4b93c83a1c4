"""What `unmask embed` and `unmask search` cost beside timm, transformers, the forward pass alone and a bare product, in one run.

    python benchmarks/vectors.py PICTURES --out benchmarks/results/vectors.json

PICTURES is a folder of JPEGs. Times of loading and encoding are CPU seconds of one process and one thread, the least of several
turns that alternate, so that other work on the machine changes little. Searches are wall times, the least of many.
"""

import argparse
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from unmask.channels import IMAGENET
from unmask.commands import embed
from unmask.contracts import Size
from unmask.data import Folder, Shards
from unmask.data.in_order import Unreadable
from unmask.encoders.chunks import chunk_for, in_chunks
from unmask.encoders.vit import VIT_B16, VIT_S16, VIT_TI16, VisionTransformer, ViT
from unmask.formats import FORMATS, write_weights
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.vectors.approximate import KINDS, Approximate, built, recall
from unmask.vectors.nearest import nearest
from unmask.vectors.pictures import Pictures, load

SIZE, CPU = Size(224, 224), torch.device("cpu")
TURNS = 3


def least(*calls: Callable[[], object], turns: int = TURNS) -> list[float]:
    """The least CPU seconds of each call, in turns."""
    best = [float("inf")] * len(calls)
    for _ in range(turns):
        for place, call in enumerate(calls):
            started = time.process_time()
            call()
            best[place] = min(best[place], time.process_time() - started)
    return best


def wall(call: Callable[[], object], turns: int) -> float:
    """The least wall seconds of a call."""
    best = float("inf")
    for _ in range(turns):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def loading(folder: Path, count: int) -> dict[str, Any]:
    """Pictures a CPU second: timm's loader, ours from the folder, ours from packed shards."""
    from timm.data import ImageDataset, create_loader

    pictures = Pictures({"train": Folder(path=str(folder)).open()})
    numbers = np.linspace(0, len(pictures) - 1, count).astype(int)
    dataset = torch.utils.data.Subset(ImageDataset(str(folder)), numbers.tolist())
    shell: Any = dataset
    shell.transform = None
    loader = create_loader(
        shell, (3, 224, 224), batch_size=64, use_prefetcher=False, num_workers=0, crop_pct=1.0,
        interpolation="bicubic", pin_memory=False,
    )  # fmt: skip
    dataset.dataset.transform = shell.transform  # create_loader sets it on the outer data set

    def theirs() -> int:
        return sum(len(images) for images, _ in loader)

    def ours(of: Pictures, chosen: np.ndarray) -> int:
        failures: Unreadable = []
        parts = np.array_split(chosen, max(1, len(chosen) // 64))
        return sum(len(load(of, SIZE, IMAGENET, part, failures).rows) for part in parts)

    with tempfile.TemporaryDirectory() as temporary:
        shards = packed(folder, Path(temporary) / "shards")
        many = Pictures({"train": Shards(path=str(shards)).open()})
        same = np.linspace(0, len(many) - 1, count).astype(int)
        assert theirs() == ours(pictures, numbers) == ours(many, same) == count
        seconds = least(theirs, partial(ours, pictures, numbers), partial(ours, many, same))
    rates = [count / one for one in seconds]
    return {
        "pictures": count,
        "timm_per_cpu_second": rates[0],
        "unmask_per_cpu_second": rates[1],
        "unmask_shards_per_cpu_second": rates[2],
        "ratio": rates[1] / rates[0],
        "ratio_shards": rates[2] / rates[0],
    }


def packed(folder: Path, shards: Path) -> Path:
    """The pictures in shards, made smaller to a shorter side of 256."""
    from threading import Event

    from unmask.data.pack import Packer
    from unmask.data.pack_manifest import Packing

    packing = Packing(
        short_side=256, quality=90, shard_mib=256, channels=(), no_data=None, frames=None, bands=()
    )
    sources = {"train": Folder(path=str(folder)).open()}
    for _ in Packer(shards, packing, sources, workers=0, max_set_aside=0.05).run(Event()):
        pass
    return shards


def command_on(
    root: Path, spec: ViT, encoder: VisionTransformer, files: Sequence[Path]
) -> Callable[[], object]:
    """`unmask embed` of files by an encoder, each call into a folder of its own; weights and pictures are put into `root`."""
    model = ModelSpec(
        format=FORMAT,
        encoder=spec,
        objective=None,
        image_size=SIZE,
        channels=3,
        statistics=IMAGENET,
        origin="random weights",
    )
    weights = Weights(model, encoder.state_dict(), {})
    write_weights(weights, root / "model", FORMATS["unmask"], "")
    (root / "pictures").mkdir()
    for number, file in enumerate(files):
        shutil.copy(file, root / "pictures" / f"{number}.jpg")
    turn = itertools.count()

    def command() -> int:
        words = [root / "model", root / "pictures", "--out", root / f"vectors-{next(turn)}"]
        flags = ["--threads", "1", "--workers", "0", "--device", "cpu"]
        return embed.main([*map(str, words), *flags])

    return command


def whole_job(folder: Path, name: str, spec: ViT, count: int) -> dict[str, Any]:
    """CPU seconds a picture: the forward pass alone on batches in memory; our loading and chunks, and the whole of `unmask embed`;
    timm and transformers with loading."""
    import timm
    from PIL import Image
    from timm.data import create_transform
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    pictures = Pictures({"train": Folder(path=str(folder)).open()})
    numbers = np.linspace(0, len(pictures) - 1, count).astype(int)
    encoder = spec.build(SIZE, 3, IMAGENET.tensors()).eval()
    theirs = timm.create_model(f"vit_{name}_patch16_224", num_classes=0).eval()
    transform = create_transform((3, 224, 224), crop_pct=1.0, interpolation="bicubic")
    files = [folder / pictures.names[number] for number in numbers]
    chunk = chunk_for(encoder, SIZE, CPU)
    ready = load(pictures, SIZE, IMAGENET, numbers, []).images
    assert ready is not None

    def forward(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (encoder.encode(images).patches.mean(1),)

    def alone() -> None:
        with torch.inference_mode():
            for part in ready.split(32):
                forward(part)

    def ours() -> None:
        images = load(pictures, SIZE, IMAGENET, numbers, []).images
        assert images is not None
        in_chunks(forward, images, range(count), chunk, CPU)

    def timms() -> None:
        with torch.inference_mode():
            for start in range(0, count, 32):
                batch = [
                    transform(Image.open(file).convert("RGB")) for file in files[start : start + 32]
                ]
                theirs(torch.stack(batch))

    config = ViTConfig(
        hidden_size=spec.embed_dim,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.num_heads,
        intermediate_size=int(spec.mlp_ratio * spec.embed_dim),
    )
    model, processor = ViTModel(config, add_pooling_layer=False).eval(), ViTImageProcessor()

    def transformers() -> None:
        with torch.inference_mode():
            for start in range(0, count, 32):
                batch = [Image.open(file).convert("RGB") for file in files[start : start + 32]]
                pixels = processor(images=batch, return_tensors="pt")["pixel_values"]
                model(pixels).last_hidden_state[:, 1:].mean(1)

    with tempfile.TemporaryDirectory() as here:
        command = command_on(Path(here), spec, encoder, files)
        seconds = least(alone, ours, command, timms, transformers, turns=2)
    return {
        "encoder": name,
        "pictures": count,
        "forward_alone_ms": 1000 * seconds[0] / count,
        "unmask_ms": 1000 * seconds[1] / count,
        "command_ms": 1000 * seconds[2] / count,
        "timm_ms": 1000 * seconds[3] / count,
        "transformers_ms": 1000 * seconds[4] / count,
        "unmask_over_forward": seconds[1] / seconds[0],
        "command_over_forward": seconds[2] / seconds[0],
        "timm_over_command": seconds[3] / seconds[2],
        "transformers_over_command": seconds[4] / seconds[2],
    }


def searching(rows: int, width: int) -> dict[str, Any]:
    """A query among generated vectors: cold, warm, and the bare product in memory."""
    random = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "matrix.npy"
        matrix = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
        for start in range(0, rows, 10000):
            part = F.normalize(
                torch.randn(min(10000, rows - start), width, generator=random), dim=1
            )
            matrix[start : start + len(part)] = part.numpy()
        matrix.flush()
        del matrix
        if hasattr(os, "posix_fadvise"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
        query = F.normalize(torch.randn(width, generator=random), dim=0)
        cold = wall(lambda: nearest(mapped, query, 10), 1)
        held = mapped.clone()
        warm = bare = float("inf")
        for _ in range(TURNS * 10):  # in turns, because other work on the machine comes and goes
            warm = min(warm, wall(lambda: nearest(mapped, query, 10), 1))
            bare = min(bare, wall(lambda: torch.mv(held, query), 1))
    return {"rows": rows, "width": width, "cold_ms": 1e3 * cold, "warm_ms": 1e3 * warm,
            "bare_product_ms": 1e3 * bare, "ratio": warm / bare}  # fmt: skip


def indexes(vectors: Path, rows: int, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """FAISS on vectors of crops (see `crops.py`): seconds to build, milliseconds a query, recall."""
    matrix = torch.from_numpy(np.load(vectors, mmap_mode="c"))
    # crops of a picture lie together: a part of the file would be a part of the pictures
    matrix = matrix[torch.linspace(0, len(matrix) - 1, min(rows, len(matrix))).long()]
    for kind in kinds:
        yield one_index(kind, matrix)


def one_index(kind: str, matrix: torch.Tensor) -> dict[str, Any]:
    """Build an index of a kind as `unmask search` does, and ask it for the neighbours of some of its vectors."""
    started = time.perf_counter()
    index = built(KINDS[kind], matrix)
    seconds = time.perf_counter() - started
    queries = matrix[torch.linspace(0, len(matrix) - 1, 200).long()]
    ready = Approximate(KINDS[kind], index, recall(KINDS[kind], index, matrix))
    each = [wall(partial(ready.nearest, matrix, query, 10), 3) for query in queries]
    return {
        "kind": kind,
        "rows": len(matrix),
        "width": matrix.shape[1],
        "build_s": seconds,
        "query_ms": 1e3 * float(np.median(each)),
        "exact_ms": 1e3 * wall(lambda: nearest(matrix, matrix[0], 10), 10),
        "recall_at_10": ready.recall,
    }


PARTS = ("loading", "searching", "whole_job", "indexes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--vectors", type=Path, help="what crops.py wrote, for the part indexes")
    parser.add_argument("--index-rows", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if "indexes" in args.parts and args.vectors is None:
        parser.error("the part indexes needs --vectors; make them with crops.py")
    torch.set_num_threads(1)
    results: dict[str, Any] = {"threads": 1, "torch": torch.__version__}

    def note(name: str, value: Any) -> None:
        results[name] = value
        print(name, json.dumps(value), flush=True)
        if args.out:
            args.out.write_text(json.dumps(results, indent=1) + "\n")

    if "loading" in args.parts:
        note("loading", loading(args.pictures, args.count))
    if "searching" in args.parts:
        note("searching", searching(args.rows, 384))
    if "whole_job" in args.parts:
        shapes = {"tiny": VIT_TI16, "small": VIT_S16, "base": VIT_B16}
        jobs = [
            (name, spec, args.count // 4**place)
            for place, (name, spec) in enumerate(shapes.items())
        ]
        note("whole_job", [whole_job(args.pictures, *job) for job in jobs])
    if "indexes" in args.parts:
        for one in indexes(args.vectors, args.index_rows, args.kinds):
            note(f"index_{one['kind']}", one)


if __name__ == "__main__":
    main()
