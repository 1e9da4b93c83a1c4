"""Moving averages of weights: teachers in pretraining, and the weights that are evaluated after fine-tuning."""

import copy
import math
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def slow_copy(module: M) -> M:
    """A copy that gets no gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move weights and running statistics towards a module's; `momentum` is the share of them that the average keeps.

    An exponential moving average (Polyak and Juditsky, 1992). Buffers of integers are copied.
    """
    slow_and_fast = chain(
        zip(average.parameters(), module.parameters(), strict=True),
        zip(average.buffers(), module.buffers(), strict=True),
    )
    for slow, fast in slow_and_fast:
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - momentum)
        else:
            slow.copy_(fast)


def rising(first: float, done: float) -> float:
    """A momentum that rises from `first` to 1 along half a cosine; `done` is the share of all steps done."""
    return 1 - (1 - first) * 0.5 * (1 + math.cos(math.pi * done))
