"""What objectives exchange between processes, once they have been told that there are several."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def total(values: Tensor) -> Tensor:
    """The sum over all processes; no gradient passes."""
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def gathered(rows: Float[Tensor, "b d"]) -> Float[Tensor, "whole d"]:
    """The rows of all processes, by rank; no gradient passes. All have equally many."""
    found = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(found, rows.detach().contiguous())
    return torch.cat(found)


class _Summed(torch.autograd.Function):
    """A sum over processes, through which gradients are summed in turn: every process's loss depends on every term."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        return total(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return total(gradients[0])


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, differentiable; on any device, unlike torch's synchronised normalisation."""
    found: Any = _Summed.apply(values)
    return found
