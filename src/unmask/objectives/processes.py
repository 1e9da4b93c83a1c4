"""What objectives exchange between processes, once they have been told that there are several."""

import torch.distributed as dist
from torch import Tensor


def total(values: Tensor) -> Tensor:
    """The sum over all processes; no gradient passes."""
    values = values.detach().clone()
    dist.all_reduce(values)
    return values
