"""Gradient clipping: what is done to large gradients before a step of the optimizer."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from unmask.spec import Kind, within

_HOW_TO_TURN_OFF = "use optimizer.clipping:none to turn clipping off"


@dataclass(frozen=True, kw_only=True)
class NoClipping:
    """Gradients are used as they are."""

    def __call__(self, parameters: list[Tensor]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class ClipTogether:
    """Scale all gradients by one factor, so that their joint norm is at most `norm`."""

    norm: float = 3.0
    """Largest joint norm."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "norm", usual=_HOW_TO_TURN_OFF)

    def __call__(self, parameters: list[Tensor]) -> None:
        """Scale the gradients in place."""
        nn.utils.clip_grad_norm_(parameters, self.norm)


@dataclass(frozen=True, kw_only=True)
class ClipEach:
    """Scale the gradient of each parameter separately, so that its norm is at most `norm` (DINO)."""

    norm: float = 3.0
    """Largest norm of one parameter's gradient."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "norm", usual=_HOW_TO_TURN_OFF)

    def __call__(self, parameters: list[Tensor]) -> None:
        """Scale the gradients in place."""
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], self.norm)


AnyClipping = (
    Annotated[NoClipping, Kind("none")]
    | Annotated[ClipTogether, Kind("together")]
    | Annotated[ClipEach, Kind("each")]
)


def clip(optimizer: torch.optim.Optimizer) -> None:
    """Clip all gradients with the `clipping` of the first parameter group, if it has one."""
    clipping = optimizer.param_groups[0].get("clipping")
    if clipping is not None:
        clipping(
            [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        )
