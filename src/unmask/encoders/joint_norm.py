"""Batch normalisation over the images of all processes, for heads that are only used in training."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from unmask.encoders.joint_sums import joint_sum

_EPSILON = 1e-5  # as torch's default


class BatchNorm(nn.Module):
    """Batch normalisation over the images of all processes, without running averages: it is only used in training."""

    def __init__(self, width: int, *, affine: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self._joined = False

    def join(self) -> None:
        """From now on, normalise over the images of all processes."""
        self._joined = True

    def forward(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Each column with mean 0 and variance 1, then scaled and shifted if `affine`."""
        rows = rows.float()
        mean = self._mean(rows)
        variance = self._mean((rows - mean).square())
        normalized = (rows - mean) * (variance + _EPSILON).rsqrt()
        if self.weight is None or self.bias is None:
            return normalized
        return normalized * self.weight + self.bias

    def _mean(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, " d"]:
        mean = rows.mean(0)  # all processes have equally many rows
        if not self._joined:
            return mean
        return joint_sum(mean) / dist.get_world_size()
