"""What a step takes at its peak, against counts by hand and the allocator's own record."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import problems
from tasks.test_detect import USUAL, detector, objects_of
from tasks.test_detect import batch_of as batch_of_objects
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from unmask.contracts import Batch, Loss
from unmask.training.step_cost import flops_per_image
from unmask.training.step_memory import hollow, peak_bytes, peak_of, saved_bytes

CPU = torch.device("cpu")
KIB = 1024


def detecting(count: int) -> Batch:
    """Pictures with two objects each."""
    return batch_of_objects([objects_of(USUAL)] * count)


def block(kib: int) -> Tensor:
    return torch.zeros(kib * KIB // 4)


def test_a_peak_by_hand() -> None:
    def work() -> None:
        first = block(3)
        second = block(5)
        view = first[10:]
        view.add_(1)  # in place: nothing new
        del first, view
        third = second + 1
        del second
        block(1), third.sum()

    assert peak_of(work, CPU) == 10 * KIB  # the second and the third
    outside = block(7)
    assert peak_of(lambda: outside.mul_(2), CPU) == 0


class Waves(nn.Module):
    """Eight sines of all values: each keeps its input, of 4 bytes a value."""

    values = 3 * problems.Problem().size.height * problems.Problem().size.width

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        hidden = self.scale * batch.images.float()
        for _ in range(8):
            hidden = hidden.sin()
        return Loss(hidden.sum(), {})


def test_nothing_is_kept_while_it_is_counted() -> None:
    module, example, each = Waves(), problems.example(), 4 * Waves.values
    assert saved_bytes(module, example, CPU, "float32") == 9 * each  # the images as floats too
    assert peak_of(lambda: saved_bytes(module, example, CPU, "float32"), CPU) <= 3 * 4 * each


@pytest.mark.parametrize("room", [2**40, 1])
def test_a_peak_has_gradients_of_activations_too(room: int) -> None:
    """Besides what is kept: the cosine of the last input and its product, or the last output."""
    module, example, each = Waves(), problems.example(), 4 * Waves.values
    found = peak_bytes(module, example, CPU, "float32", 9 * each, room)
    assert 10 * each <= found <= 12 * each
    assert module.scale.grad is None


def recorded(work: Callable[[], object]) -> int:
    """The peak of what torch's allocator of CPU memory gave out, by its own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    kineto: Any = profiler.profiler
    events = [one for one in kineto.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_a_step_of_detection_peaks_where_the_allocator_says() -> None:
    """Buffers within kernels do not count here, and are small."""
    module, batch = detector(), detecting(2)

    def step() -> None:
        module.zero_grad()
        module(batch, torch.Generator().manual_seed(0)).total.backward()

    step()
    found, expected = peak_of(step, CPU), recorded(step)
    assert found == pytest.approx(expected, rel=0.1)


def test_flops_are_counted_without_keeping_activations() -> None:
    model, example = problems.build(), problems.example()
    batch = example(2)

    def step() -> None:
        model(batch, torch.Generator().manual_seed(0)).total.backward()

    def lean() -> None:
        with hollow():
            step()

    kept = peak_of(step, CPU)
    model.zero_grad()
    assert peak_of(lean, CPU) < kept


def test_recomputing_does_not_count_as_flops() -> None:
    module = detector()
    plain = flops_per_image(module, detecting, CPU, "float32")
    module.saves_memory = True
    assert flops_per_image(module, detecting, CPU, "float32") == plain
    assert module.saves_memory
