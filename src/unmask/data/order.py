"""The order of samples: a pure function of (seed, epoch), without a table and without state.

The order of an epoch is a permutation of 0..n-1, computed index by index with a small Feistel network (Luby and
Rackoff, 1988) on the next power of four; results of n or more are permuted again until they are below n.
"""

import numpy as np
from numpy.typing import NDArray

from unmask.randomness import derive, mix

_ROUNDS = 6


def permuted(positions: NDArray[np.int64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The sample at each position of an epoch; every index of 0..count-1 occurs exactly once per epoch."""
    half = max(1, (int(count - 1).bit_length() + 1) // 2)
    keys = [np.uint64(derive("order", seed, epoch, turn)) for turn in range(_ROUNDS)]
    result = _feistel(positions.astype(np.uint64), half, keys)
    outside = result >= count
    while outside.any():
        result[outside] = _feistel(result[outside], half, keys)
        outside = result >= count
    return result.astype(np.int64)


def _feistel(numbers: NDArray[np.uint64], half: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    bits, low = np.uint64(half), np.uint64(2**half - 1)
    left, right = numbers >> bits, numbers & low
    for key in keys:
        left, right = right, left ^ (mix(right ^ key) & low)
    return (left << bits) | right


def samples(step: int, batch_size: int, count: int, seed: int) -> list[tuple[int, int]]:
    """The (epoch, index) of each sample of a step.

    The last batch of an epoch is filled with the first images of the next, so that every image is seen once per epoch
    for any batch size.
    """
    numbers = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = numbers // count
    chosen: list[tuple[int, int]] = []
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        positions = numbers[epochs == epoch] % count
        chosen += [(epoch, int(i)) for i in permuted(positions, count, seed, epoch)]
    return chosen


def rows_of(rank: int, processes: int, batch_size: int) -> list[int] | None:
    """The rows of a batch that one of several processes computes, in ascending order; None for a single process.

    Rows are dealt from the outside in: first and last, second and last but one, and so on. So a process has both
    images of a mixup pair, which `data.mixing` takes from a batch and its reverse.

    >>> rows_of(0, 2, 8), rows_of(1, 2, 8)
    ([0, 1, 6, 7], [2, 3, 4, 5])
    """
    if processes == 1:
        return None
    order = [
        row for pair in zip(range(batch_size), range(batch_size)[::-1], strict=True) for row in pair
    ]
    share = batch_size // processes
    return sorted(order[:batch_size][rank * share : (rank + 1) * share])
