"""Muon (Jordan, 2024): orthogonalised momentum for matrices, AdamW for everything else."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

from unmask.spec import within
from unmask.training.hardware import has_bfloat16
from unmask.training.parameter_groups import decay_groups


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Muon for the matrices of Transformer blocks, AdamW for all other parameters.

    A matrix moves along its momentum made orthogonal. The step is scaled to the usual size of AdamW's steps (Liu and
    others, 2025), so one learning rate and weight decay fit both. The fused projection of queries, keys and values is
    treated as the three matrices that it holds. "Orthogonal" is approximate: five Newton-Schulz iterations, in bfloat16
    as published on GPUs that have it, else in float32.
    """

    momentum: float = 0.95
    """Momentum of matrices, in Nesterov's form."""

    beta1: float = 0.9
    """AdamW: decay rate of the mean of gradients."""

    beta2: float = 0.95
    """AdamW: decay rate of the mean of squared gradients."""

    weight_decay: float = 0.05
    """Weight decay of matrices and tokens; vectors and biases have none."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "momentum", "beta1", "beta2")
        within(self, "[0, inf)", "weight_decay")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all trainable parameters; `set_rates` sets its learning rate before every step."""
        # blocks are recognised by the name of the ModuleList that holds them
        names = {parameter: f".{name}" for name, parameter in module.named_parameters()}
        with_decay, without_decay = decay_groups(module)
        in_blocks = [p for p in with_decay if p.ndim == 2 and ".blocks." in names[p]]
        fused = [p for p in in_blocks if names[p].endswith(".qkv.weight")]
        single = [p for p in in_blocks if not names[p].endswith(".qkv.weight")]
        others = [p for p in with_decay if not (p.ndim == 2 and ".blocks." in names[p])]
        decay = self.weight_decay
        groups = [
            {"params": without_decay, "matrices": 0, "weight_decay": 0.0},
            {"params": others, "matrices": 0, "weight_decay": decay},
            {"params": single, "matrices": 1, "weight_decay": decay},
            {"params": fused, "matrices": 3, "weight_decay": decay},
        ]
        groups = [group for group in groups if group["params"]]
        betas = (self.beta1, self.beta2)
        return MuonOptimizer(groups, {"lr": 0.0, "momentum": self.momentum, "betas": betas})


class MuonOptimizer(torch.optim.Optimizer):
    """See `Muon`.

    torch's own Muon accepts no vectors, and neither torch's nor timm's splits a fused projection.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["matrices"]:
                for parameter in parameters:
                    self._muon(parameter, group)
            elif parameters:
                self._adamw(parameters, group)

    def _muon(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        nesterov = gradient.lerp(momentum, group["momentum"])
        matrices = nesterov.unflatten(0, (group["matrices"], -1))
        update = orthogonal(matrices.bfloat16() if has_bfloat16(matrices.device) else matrices)
        # 0.2 is the usual root mean square of AdamW's steps; an orthogonal matrix has 1 / sqrt(longer side)
        scale = 0.2 * max(matrices.shape[1:]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.flatten(0, 1).to(parameter.dtype), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def orthogonal(matrices: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k rows columns"]:
    """Bring all singular values of each matrix near 1 (Jordan, 2024: five quintic Newton-Schulz iterations)."""
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if is_tall else matrices  # the smaller product of the two
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = wide @ wide.mT
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide.mT if is_tall else wide
