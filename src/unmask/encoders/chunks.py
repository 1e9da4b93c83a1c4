"""Forward passes on chunks of a fixed size, so that the bits of a vector depend on nothing but its image.

A matrix product may add in another order for another number of rows or threads. So every image passes the encoder in a chunk
whose shape follows from the encoder and the image size alone, in the slot that follows from its position, on one thread.
Slots without an image hold zeros. Several threads compute several chunks at a time.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.contracts import Encoder, Size

_CPU_TOKENS = 1024  # more gain nothing on a CPU, and a single query would wait for the empty slots
_GPU_TOKENS = 16384  # fewer leave a GPU idle
_MOST = 64  # images

Forward = Callable[[Tensor], tuple[Tensor, ...]]
"""Images [b c h w] to tensors whose rows belong to the images."""


def chunk_for(encoder: Encoder, size: Size, device: torch.device) -> int:
    """Images of this size in a chunk: a power of two, so that chunks divide parts and batches of usual sizes."""
    grid = encoder.mask_grid(size)
    room = (_CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS) // (grid.height * grid.width)
    return 1 << (min(_MOST, max(1, room)).bit_length() - 1)


@torch.no_grad()
def in_chunks(
    forward: Forward,
    images: Shaped[Tensor, "b c h w"],
    positions: Sequence[int],
    chunk: int,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """What `forward` gives for each image, in order, on its device; without gradients.

    Args:
        forward: one image must not change the result of another.
        images: on any device.
        positions: the place of each image in its set, rising; image p is in slot p % chunk of chunk p // chunk.
        chunk: images that pass together, see `chunk_for`.
        device: where to compute.
    """
    rows = [
        list(group) for _, group in groupby(range(len(images)), lambda row: positions[row] // chunk)
    ]
    slots = [[positions[row] % chunk for row in group] for group in rows]

    def one(number: int) -> tuple[Tensor, ...]:
        part = images[rows[number][0] : rows[number][-1] + 1].to(device)
        chosen = slots[number]
        if len(chosen) == chunk:
            return _detached(forward, part)
        whole = part.new_zeros(chunk, *part.shape[1:])
        whole[chosen] = part
        return tuple(result[chosen] for result in _detached(forward, whole))

    parts = _each(one, len(rows), device)
    return tuple(torch.cat(results) for results in zip(*parts, strict=True))


@torch.no_grad()  # modes of autograd belong to a thread
def _detached(forward: Forward, images: Tensor) -> tuple[Tensor, ...]:
    return forward(images)


def _each(
    one: Callable[[int], tuple[Tensor, ...]], count: int, device: torch.device
) -> list[tuple[Tensor, ...]]:
    """The results of a number of calls, each on one thread, as many at a time as torch has threads."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return list(map(one, range(count)))
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, range(count)))
    finally:
        torch.set_num_threads(threads)
