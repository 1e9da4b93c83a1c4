"""An exponential moving average of a module's weights (Polyak and Juditsky, 1992), for evaluation."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """Exponential moving averages of some modules, updated after every step."""

    def __init__(self, decay: float, **followed: nn.Module) -> None:
        """`decay` is the weight of the old average in each update."""
        super().__init__()
        self.decay = decay
        self.copies = nn.ModuleDict({n: copy.deepcopy(module) for n, module in followed.items()})
        self.requires_grad_(False)

    @torch.no_grad()
    def follow(self, **followed: nn.Module) -> None:
        """Update the averages from the modules; integer buffers are copied."""
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, module in followed.items():
            copies = self.copies[name].state_dict()
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    averages.append(copies[key])
                    values.append(value)
                else:
                    copies[key].copy_(value)
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, 1 - self.decay)
