"""Which sample comes when: a pure function of (seed, epoch), with no table and no state.

The order of an epoch is a permutation of 0..n-1, computed index by index with a small Feistel
network (Luby and Rackoff, 1988) on the next power of four, walked until it falls below n.
"""

import numpy as np
from numpy.typing import NDArray

from unmask.randomness import derive, mix

_ROUNDS = 6


def permuted(positions: NDArray[np.int64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where each position of an epoch points to: every index of 0..count-1 exactly once an epoch."""
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

    Epochs follow one another without a gap: the last batch of one may hold the first images of the
    next, so that every image is seen once an epoch whatever the batch size.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // count
    chosen: list[tuple[int, int]] = []
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        positions = places[epochs == epoch] % count
        chosen += [(epoch, int(i)) for i in permuted(positions, count, seed, epoch)]
    return chosen


def rows_of(rank: int, processes: int, batch_size: int) -> list[int] | None:
    """The rows of a batch that one of several processes has, in rising order; None for one alone.

    A batch is dealt from outside in: first and last row, second and last but one, and so on, so that
    a process has both images of a pair (see `data.mixing`).

    >>> rows_of(0, 2, 8), rows_of(1, 2, 8)
    ([0, 1, 6, 7], [2, 3, 4, 5])
    """
    if processes == 1:
        return None
    inwards = [
        row for pair in zip(range(batch_size), range(batch_size)[::-1], strict=True) for row in pair
    ]
    share = batch_size // processes
    return sorted(inwards[:batch_size][rank * share : (rank + 1) * share])
