"""Collectives that objectives use between processes; only called after `join`."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def total(values: Tensor) -> Tensor:
    """The sum over all processes, without gradients."""
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def gathered(rows: Float[Tensor, "b d"]) -> Float[Tensor, "whole d"]:
    """The rows of all processes in the order of ranks, without gradients; each process has equally many rows."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


class _Summed(torch.autograd.Function):
    """A differentiable sum over processes. Every process's loss depends on every term, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        return total(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return total(gradients[0])


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, with gradients; works on any device, unlike torch's SyncBatchNorm."""
    result: Any = _Summed.apply(values)
    return result
