"""A slow average of a module's weights (Polyak and Juditsky, 1992), which is evaluated in their place."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """Copies of some modules that move towards them by a small share after every step."""

    def __init__(self, decay: float, **followed: nn.Module) -> None:
        """`decay` is the share of the old average that stays."""
        super().__init__()
        self.decay = decay
        self.copies = nn.ModuleDict({n: copy.deepcopy(module) for n, module in followed.items()})
        self.requires_grad_(False)

    @torch.no_grad()
    def follow(self, **followed: nn.Module) -> None:
        """Take a step towards the modules as they are now; whole numbers are copied."""
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, module in followed.items():
            mine = self.copies[name].state_dict()
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    averages.append(mine[key])
                    values.append(value)
                else:
                    mine[key].copy_(value)
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, 1 - self.decay)
