"""Optimizers and their parameter groups."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from unmask.errors import SettingsError
from unmask.spec import Kind


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    beta1: float = 0.9
    """Memory of the gradient."""

    beta2: float = 0.95
    """Memory of its square; 0.95 in MAE's pretraining (table 8), 0.999 in its fine-tuning (table 9)."""

    weight_decay: float = 0.05
    """Decay of matrices and tokens; vectors and biases have none."""

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise SettingsError(f"weight_decay must not be negative, got {self.weight_decay}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all parameters that learn; its rate is set before every step."""
        decayed, exempt = decay_groups(module)
        groups = [
            {"params": exempt, "weight_decay": 0.0},
            {"params": decayed, "weight_decay": self.weight_decay},
        ]
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)


AnyOptimizer = Annotated[AdamW, Kind("adamw")]


def decay_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with and without weight decay, in the module's order.

    As published: vectors and biases are exempt; class and mask tokens, which have three dimensions,
    are not.
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            vector = parameter.ndim <= 1 or name.rpartition(".")[2] == "bias"
            (exempt if vector else decayed).append(parameter)
    return decayed, exempt
