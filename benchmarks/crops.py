"""Vectors of random crops of pictures, as many as one likes: what the benchmark of indexes searches.

    python benchmarks/crops.py PICTURES --count 200000 --out crops.npy

PICTURES is a folder of pictures, with folders in it. Each picture gives equally many crops of 2 to 30 % of its area, at 32 x 32 pixels.
They pass a small encoder (three blocks of width 96, patches of 8 pixels, random weights unless --encoder names a run), and their
vectors are whitened to as many components as they have and scaled to length 1, as in a folder of vectors.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.data import Folder
from unmask.data.labelled import with_channels
from unmask.data.resizing import bicubic
from unmask.data.views import draw_box
from unmask.encoders.vit import VisionTransformer, ViT
from unmask.evaluation.vectors import VectorRule
from unmask.randomness import generator, seeded
from unmask.runs.model import load

SIDE = Size(32, 32)
SMALL = ViT(patch_size=8, embed_dim=96, depth=3, num_heads=3)
SHORT = 256  # pixels of the shorter side that crops are taken from
SHARES = (0.02, 0.3)  # of the picture's area
AT_ONCE = 256  # crops that pass the encoder together


def crops(folder: Path, count: int) -> Iterator[Tensor]:
    """Crops of all pictures of a folder, uint8 [3 32 32], picture by picture."""
    source = with_channels(Folder(path=str(folder)).open(), 3, "colour")
    ends = np.linspace(0, count, len(source) + 1).astype(int)
    for position, (start, stop) in enumerate(pairwise(ends.tolist())):
        image = source[position].image
        factor = min(1.0, SHORT / min(image.shape[-2:]))
        whole = Size(*(max(1, round(factor * side)) for side in image.shape[-2:]))
        image = bicubic(image, whole)
        random = generator("cpu", "crops", position)
        for _ in range(stop - start):
            box = draw_box(whole, SHARES[0], random, SHARES[1])
            part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
            yield bicubic(part, SIDE)


@torch.inference_mode()
def vectors(folder: Path, count: int, encoder: VisionTransformer) -> Tensor:
    """The vectors of crops, whitened and of length 1, float32 [count d]."""
    found, waiting, started = (
        torch.empty(count, encoder.embed_dim),
        list[Tensor](),
        time.perf_counter(),
    )
    done = 0
    for crop in crops(folder, count):
        waiting.append(crop)
        if len(waiting) == AT_ONCE or done + len(waiting) == count:
            found[done : done + len(waiting)] = encoder.encode(torch.stack(waiting)).patches.mean(1)
            done, waiting = done + len(waiting), []
            if done % (100 * AT_ONCE) == 0:
                print(
                    f"{done:,} crops, {done / (time.perf_counter() - started):,.0f} a second",
                    flush=True,
                )
    fitted = VectorRule(whitened=encoder.embed_dim).fit(found[:: max(1, count // 50_000)].clone())
    return torch.cat([F.normalize(fitted.of(part), dim=1) for part in found.split(50_000)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--encoder", help="a run, or weights, for pictures of 32 pixels")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.encoder:
        encoder = load(args.encoder).encoder
    else:
        with seeded("weights", 0):
            encoder = SMALL.build(SIDE, 3, IMAGENET.tensors()).eval()
    np.save(args.out, vectors(args.pictures, args.count, encoder).numpy())


if __name__ == "__main__":
    main()
