"""Dynamic loss scaling, for float16 (Micikevicius and others, "Mixed precision training", 2018, sections 3.2 and 4).

float16 ends at 6e-8 and at 65,504, and gradients are often smaller. So the loss is multiplied by a scale before the backward
pass, and gradients, which end up in float32, are divided by it. The scale is halved when gradients overflow, and their step
is skipped; it is doubled after many steps without. torch's `GradScaler` keeps its state on the GPU and decides there, and has
no part for sharded gradients. This one has two numbers, which every process knows and a checkpoint holds, so
that resuming is exact; it waits for the GPU once a step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from unmask.errors import DivergedError
from unmask.training.distributed import agreed, own_part
from unmask.training.hardware import Precision

_FIRST = 2.0**16  # as in torch; powers of two change no digit of a gradient
_LEAST = 1.0
_STEPS_TO_GROW = 2000  # as in torch


@dataclass
class LossScale:
    """The scale of the loss, and the steps without overflow since it changed."""

    scale: float
    """Factor on the loss."""

    good_steps: int = 0
    """Steps without overflow since the last change."""

    def unscale(self, optimizer: torch.optim.Optimizer) -> bool:
        """Divide the gradients by the scale; whether those of all processes are finite. All processes must call it."""
        gradients = [
            own_part(parameter.grad)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for gradient in gradients:
            gradient.mul_(1 / self.scale)
        finite = bool(get_total_norm(gradients).isfinite())
        return not agreed(not finite)[0]

    def follow(self, *, finite: bool, step: int) -> None:
        """Change the scale after a step.

        Raises:
            DivergedError: if gradients are not finite at the smallest scale.
        """
        if not finite and self.scale <= _LEAST:
            raise DivergedError(
                f"the gradients of step {step} are not finite at any scale of the loss, so training stopped; most "
                "likely the learning rate is too high (try half of --schedule.base-lr), or the model needs "
                "--precision float32"
            )
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale = max(_LEAST, self.scale / 2)
        elif self.good_steps == _STEPS_TO_GROW:
            self.scale, self.good_steps = self.scale * 2, 0

    def tensors(self) -> dict[str, Tensor]:
        """The state for a checkpoint."""
        return {"scale": torch.tensor(self.scale), "good_steps": torch.tensor(self.good_steps)}


def loss_scale_for(
    precision: Precision, tensors: dict[str, Tensor] | None = None
) -> LossScale | None:
    """The scale from the tensors of a checkpoint, or the first one; None for precisions that need none."""
    if precision != "float16":
        return None
    if not tensors:
        return LossScale(_FIRST)
    return LossScale(float(tensors["scale"]), int(tensors["good_steps"]))
