"""Differentiable sums and rows over processes, for modules whose results depend on the images of all of them."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor


def joint_sum(values: Tensor) -> Tensor:
    """The sum of the tensors of all processes, which must all call it; works on any device, unlike torch's SyncBatchNorm."""
    total: Any = _SumOverProcesses.apply(values)
    return total


class _SumOverProcesses(torch.autograd.Function):
    """Every process's loss depends on every term, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        return _total(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _total(gradients[0])


def _total(values: Tensor) -> Tensor:
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def joint_rows(
    rows: Float[Tensor, "b d"], places: Int[Tensor, " b"], whole: int
) -> Float[Tensor, "whole d"]:
    """The rows of all processes, with gradients; `places` are those of the own ones among the `whole`."""
    table = rows.new_zeros(whole, rows.shape[1])
    return joint_sum(table.index_copy(0, places, rows))
