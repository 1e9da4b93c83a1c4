"""A slow copy of a module, whose guesses the module itself learns to give."""

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def slow_copy(module: M) -> M:
    """A copy that learns nothing by gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move a copy's parameters towards those of its original; `momentum` is the share of them that stays."""
    for slow, quick in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(quick, 1 - momentum)


@torch.no_grad()
def equal(teacher: nn.Module, student: nn.Module) -> None:
    """Make a copy what its original is now."""
    follow(teacher, student, momentum=0.0)


def rising(first: float, done: float) -> float:
    """A momentum that goes from its first value to 1 along half a cosine, at a share of all steps done."""
    return 1 - (1 - first) * 0.5 * (1 + math.cos(math.pi * done))
