"""What a step costs, against counts by hand."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from reference import problems
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Size
from unmask.training.optimizers import AdamW
from unmask.training.step_cost import Cost, measure_cost
from unmask.training.step_memory import saved_bytes

CPU = torch.device("cpu")
ROOM = 2**30
VALUES = 3 * 16 * 16


class Layer(nn.Module):
    """A linear layer of the pixels, and what becomes of its output."""

    def __init__(self, width: int, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(VALUES, width)
        self.after = after

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        return Loss(self.after(self.linear(batch.images.flatten(1).float())).sum(), {})


def measured(module: nn.Module) -> int:
    return saved_bytes(module, problems.example(), CPU, "float32")


def test_a_linear_layer_keeps_its_input() -> None:
    assert measured(Layer(10, lambda x: x)) == 4 * VALUES


def test_an_activation_keeps_its_input_too() -> None:
    assert measured(Layer(10, F.gelu)) == 4 * (VALUES + 10)


def test_what_is_kept_twice_counts_once() -> None:
    assert measured(Layer(10, lambda x: F.gelu(x) + F.gelu(x))) == 4 * (VALUES + 10)


def test_weights_do_not_count() -> None:
    assert measured(Layer(1000, lambda x: x)) == 4 * VALUES


def test_a_model_keeps_about_what_its_layers_do() -> None:
    """Per token and layer 17 numbers of the width are kept at most, and 8 at least."""
    problem = problems.Problem(size=Size(32, 32))
    model = problems.build(problem)
    found = saved_bytes(model, problems.example(problem), CPU, "float32")
    tokens = 2 * 17 * problem.width + 2 * 65 * problem.decoder_width  # layers x tokens x width
    assert 8 * 4 * tokens < found < 40 * 4 * tokens


def test_nothing_stays_in_memory_once_it_is_measured() -> None:
    """An output that the graph that made it holds by a hook would never be freed, and its weights with it."""
    problem = problems.Problem(size=Size(32, 32))
    model = problems.build(problem)
    weights = [weakref.ref(parameter) for parameter in model.parameters()]
    saved_bytes(model, problems.example(problem), CPU, "float32")
    del model
    gc.collect()
    assert not [weight for weight in weights if weight() is not None]


def test_cost_adds_up() -> None:
    cost = Cost(
        seconds_per_image=0.5,
        seconds_per_micro_batch=2.0,
        seconds_per_update=1.0,
        bytes_per_image=10,
        bytes_fixed=100,
        bytes_process=1,
    )
    assert cost.step_seconds(8, 8) == 0.5 * 8 + 2 + 1
    assert cost.step_seconds(8, 3) == 0.5 * 8 + 2 * 3 + 1
    assert cost.memory(5) == 150


def test_measuring_leaves_the_run_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.training.step_cost._LONG_ENOUGH", 0.0)
    model = problems.build()
    optimizer = AdamW().build(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.default_generator.get_state()
    cost = measure_cost(
        model,
        optimizer,
        example=problems.example(),
        largest=4,
        device=CPU,
        precision="float32",
        room=ROOM,
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not optimizer.state
    assert torch.equal(torch.default_generator.get_state(), state)
    assert cost.seconds_per_image > 0
    assert cost.seconds_per_update > 0
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    steps = 4 * sum(p.requires_grad for p in model.parameters())  # a counter each
    assert cost.bytes_fixed == 4 * (4 * learning + fixed) + steps  # weight, gradient, two moments


class Growing(Layer):
    """A layer whose work is its load: so many copies of its output are kept."""

    load: float | None = None

    def __init__(self) -> None:
        super().__init__(50, lambda x: x)
        self.loads: list[float | None] = []

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        self.loads.append(self.load)
        copies = round(100 * (self.load or 0))
        output = self.linear(batch.images.flatten(1).float())
        return Loss(sum((output * n).sigmoid().sum() for n in range(copies)) + output.sum(), {})


def test_memory_is_that_of_the_largest_step_and_time_that_of_a_usual_one() -> None:
    """The gradient of a sigmoid keeps its output: 100 x 50 numbers of 4 bytes an image at the full load."""
    module = Growing()
    cost = measure_cost(
        module,
        AdamW().build(module),
        example=problems.example(),
        largest=2,
        device=CPU,
        precision="float32",
        room=ROOM,
    )
    assert cost.bytes_per_image >= 4 * 100 * 50
    assert set(module.loads) == {1.0, 0.5}
    assert module.loads[-1] == 1.0  # its peak is what kernels and the allocator take besides
    assert module.load is None
