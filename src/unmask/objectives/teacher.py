"""A teacher: a copy of a module that follows it as an exponential moving average."""

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def slow_copy(module: M) -> M:
    """A copy that gets no gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher's parameters towards the student's; `momentum` is the share of them that it keeps."""
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


@torch.no_grad()
def copy_weights(teacher: nn.Module, student: nn.Module) -> None:
    """Set the teacher's parameters to the student's."""
    follow(teacher, student, momentum=0.0)


def rising(first: float, done: float) -> float:
    """A momentum that rises from `first` to 1 along half a cosine; `done` is the share of all steps done."""
    return 1 - (1 - first) * 0.5 * (1 + math.cos(math.pi * done))
