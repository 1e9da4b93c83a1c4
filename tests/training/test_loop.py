"""The loop: micro-batches, randomness of a step, rates, and what it says when memory runs out."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import Problem
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unmask.contracts import Batch, Loss, StepReport
from unmask.errors import ResourceError
from unmask.masking import AnyMasking, BlockMasking, GridMasking, RandomMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder
from unmask.training.loop import Planned, train
from unmask.training.optimizers import AdamW

CPU = torch.device("cpu")


def images_of(steps: int, count: int = 6) -> Iterator[Batch]:
    for step in range(steps):
        yield problems.batch_of(problems.pictures(Problem(), count=count, seed=step))


def run(
    module: nn.Module,
    *,
    first_step: int = 0,
    steps: int = 3,
    seed: int = 0,
    micro_batch: int = 6,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[StepReport]:
    stream = images_of(steps)
    for _ in range(first_step):
        next(stream)
    return list(
        train(
            module,  # type: ignore[arg-type]
            stream,
            optimizer or AdamW().build(module),
            Planned(steps, lambda step: 1e-3 * (step + 1)),
            first_step=first_step,
            seed=seed,
            device=CPU,
            precision="float32",
            micro_batch=micro_batch,
        )
    )


class Recording(nn.Module):
    """A linear model that notes its gradient-free surroundings: batch sizes and draws."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.sizes: list[int] = []
        self.draws: list[float] = []

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        self.sizes.append(len(batch.images))
        self.draws.append(torch.rand((), generator=generator).item())
        values = batch.images.float().mean((1, 2, 3))
        return Loss((self.weight * values).mean(), {"values": values.mean()})


class Frozen(torch.optim.SGD):
    """Keeps gradients to look at."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.parameters(), lr=0.0)
        self.gradients: list[list[Tensor]] = []

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        self.gradients.append(
            [p.grad.clone() for g in self.param_groups for p in g["params"] if p.grad is not None]
        )


def masked_by(masking: AnyMasking) -> MaskedAutoencoder:
    torch.manual_seed(1)
    decoder = SelfAttentionDecoder(embed_dim=16, depth=1, num_heads=2)
    return MAE(masking=masking, decoder=decoder).build(problems.build_encoder())


@pytest.mark.parametrize("masking", [GridMasking(), RandomMasking(), BlockMasking()], ids=str)
@pytest.mark.parametrize("micro_batch", [1, 2, 4, 5, 100])
def test_micro_batches_give_the_gradient_of_the_whole(
    micro_batch: int, masking: AnyMasking
) -> None:
    """Also when the last is smaller (6 = 4 + 2): every image counts the same, and has the mask it has in the whole."""
    model = masked_by(masking)
    whole, parts = Frozen(model), Frozen(model)
    expected = run(model, steps=2, optimizer=whole)
    found = run(model, steps=2, optimizer=parts, micro_batch=micro_batch)
    for left, right in zip(expected, found, strict=True):
        torch.testing.assert_close(left.loss, right.loss, atol=1e-6, rtol=1e-6)
    for left, right in zip(whole.gradients, parts.gradients, strict=True):
        assert len(left) > 20
        for one, other in zip(left, right, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_sizes_and_parts_of_micro_batches() -> None:
    model = Recording()
    (report,) = run(model, steps=1, micro_batch=4)
    assert model.sizes == [4, 2]
    values = next(images_of(1)).images.float().mean((1, 2, 3))
    torch.testing.assert_close(report.parts["values"], values.mean())
    torch.testing.assert_close(report.loss, values.mean())
    assert report.images == 6


def test_randomness_of_a_step_depends_on_seed_and_step_alone() -> None:
    whole, late, other = Recording(), Recording(), Recording()
    run(whole, steps=4)
    torch.manual_seed(1234)
    run(late, first_step=2, steps=4)
    run(other, steps=4, seed=1)
    assert late.draws == whole.draws[2:]
    assert len(set(whole.draws)) == 4
    assert not set(whole.draws) & set(other.draws)


def test_reports_and_rates() -> None:
    model = Recording()
    optimizer = AdamW().build(model)
    reports = run(model, first_step=1, steps=3, optimizer=optimizer)
    assert [report.step for report in reports] == [2, 3]
    assert [report.learning_rate for report in reports] == [2e-3, 3e-3]
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3}
    assert not any(report.loss.requires_grad for report in reports)
    assert all(report.waiting_seconds >= 0 for report in reports)


def test_the_weights_follow_the_gradients() -> None:
    torch.manual_seed(0)
    model = problems.build()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    run(model, steps=2)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name


def test_the_loop_stops_where_its_caller_stops() -> None:
    model = Recording()
    reports = train(
        model,
        images_of(100),
        AdamW().build(model),
        Planned(100, lambda step: 1e-3),
        first_step=0,
        seed=0,
        device=CPU,
        precision="float32",
        micro_batch=6,
    )
    for report in reports:
        if report.step == 3:
            break
    assert len(model.sizes) == 3


def test_nothing_is_left_to_do() -> None:
    assert run(Recording(), first_step=3, steps=3) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
    ],
    ids=["gpu", "cpu", "mps"],
)
def test_too_little_memory_names_the_half(error: Exception) -> None:
    class Huge(Recording):
        def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
            raise error

    with pytest.raises(
        ResourceError, match=r"step 1 does not fit in memory with 6 .* try --micro-batch 3"
    ) as caught:
        run(Huge())
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "words",
    [
        "shapes do not fit",
        "CUDA error: an illegal memory access was encountered",
        "out of resource: shared memory",
    ],
)
def test_other_errors_pass(words: str) -> None:
    class Wrong(Recording):
        def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
            raise RuntimeError(words)

    with pytest.raises(RuntimeError, match=words):
        run(Wrong())


class Reading(TorchDispatchMode):
    """Notes operations for whose result the program must wait, on a GPU, before it can go on."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "_unique")

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.startswith(self.WAITING):
            self.waited.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_a_gpu() -> None:
    with Reading() as reading:
        reports = run(problems.build(), micro_batch=4)
        assert reading.waited == []
        reports[-1].loss.item()
    assert len(reading.waited) == 1
