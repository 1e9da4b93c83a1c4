"""The search in a memory of normal patches (`unmask odd`): torch's exact distances beside FAISS, in one run.

    python benchmarks/memories.py --patches 100000 --width 192

CPU seconds of one thread for the 196 patches of an image, the least of turns that alternate. Generated vectors in clusters.
IVF is that of `--index ivf`; its error is the mean share by which its distances are larger than the exact ones.
"""

import argparse
import json
import time
from collections.abc import Callable

import faiss
import torch

from unmask.evaluation.patch_index import PatchIndex

QUERIES, TURNS = 196, 3


def seconds(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least CPU seconds of each call, in turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(TURNS):
        for name, call in calls.items():
            started = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=192)
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(200, args.width, generator=random)
    memory, queries = (
        centres[torch.randint(200, (count,), generator=random)]
        + 0.6 * torch.randn(count, args.width, generator=random)
        for count in (args.patches, QUERIES)
    )
    flat = faiss.IndexFlatL2(args.width)
    flat.add(memory.numpy())
    started = time.process_time()
    lists = PatchIndex.of(memory)
    built = time.process_time() - started
    exact = torch.cdist(queries, memory).amin(1)
    found = lists.distances(queries[None])[0]
    times = seconds(
        {
            "torch": lambda: torch.cdist(queries, memory).amin(1),
            "faiss_exact": lambda: flat.search(queries.numpy(), 1),
            "faiss_ivf": lambda: lists.distances(queries[None]),
        }
    )
    error = float((found / exact - 1).mean())
    print(json.dumps({**vars(args), **times, "ivf_build": built, "ivf_error": error}))


if __name__ == "__main__":
    main()
