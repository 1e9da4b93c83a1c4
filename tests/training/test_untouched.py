"""Whatever is measured of a module leaves it as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import problems
from torch import nn

from unmask.contracts import Batch, Loss
from unmask.training.kernels import attention_shapes
from unmask.training.optimizers import AdamW
from unmask.training.step_cost import flops_per_image, measure_cost
from unmask.training.step_memory import saved_bytes

CPU = torch.device("cpu")
ROOM = 2**30


class Counting(nn.Module):
    """A module that remembers what it has seen, as batch norm and teachers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        self.seen += len(batch.images)
        hidden = self.linear(batch.images.flatten(1).float() / 255)
        return Loss(self.norm(hidden.repeat(2, 1)).square().sum(), {})


def cost(module: nn.Module, example: Callable[[int], Batch]) -> object:
    optimizer = AdamW().build(module)
    return measure_cost(
        module, optimizer, example=example, largest=4, device=CPU, precision="float32", room=ROOM
    )


@pytest.mark.parametrize(
    "measured",
    [
        cost,
        lambda module, example: saved_bytes(module, example, CPU, "float32"),
        lambda module, example: flops_per_image(module, example, CPU, "float32"),
        lambda module, example: attention_shapes(module, example, CPU, "float32"),
    ],
    ids=["cost", "bytes", "flops", "shapes"],
)
def test_no_measurement_leaves_a_trace(
    measured: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.training.step_cost._LONG_ENOUGH", 0.0)
    module = Counting()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    measured(module, problems.example())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in module.parameters())


def test_also_after_an_error() -> None:
    class Failing(Counting):
        def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
            super().forward(batch, generator)
            raise ZeroDivisionError

    module = Failing()
    with pytest.raises(ZeroDivisionError):
        attention_shapes(module, problems.example(), CPU, "float32")
    assert module.seen == 0
