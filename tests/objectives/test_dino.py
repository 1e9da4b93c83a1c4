"""DINO against the authors' numbers, a literal version, and the schedules of its paper."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import problems
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Batch, Moment
from unmask.encoders.averages import rising
from unmask.errors import SettingsError
from unmask.objectives.dino import DINO, SelfDistillation
from unmask.randomness import generator
from unmask.training.loop import Planned, train

Vectors = Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]

SPEC = DINO(prototypes=12, hidden_dim=10, bottleneck_dim=6, drop_path=0.0, frozen_epochs=0)


def build(spec: DINO = SPEC) -> SelfDistillation:
    """A small model whose teacher and centre differ from what they start as."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = spec.build(problems.build_encoder())
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        model.center.normal_(std=0.2)
    return model.train()


def views_of(epoch: int = 0, count: int = 3) -> Batch:
    """Two views of 16 pixels and two of 8."""
    sizes = (16, 16, 8, 8)
    views = tuple(
        torch.randint(
            256, (count, 3, size, size), generator=problems.random(place), dtype=torch.uint8
        )
        for place, size in enumerate(sizes)
    )
    numbers = torch.arange(count)
    return Batch(views, numbers, numbers, epoch)


def test_loss_centre_and_gradient_are_the_published_ones(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = vectors("dino_loss")
    model = build(replace(SPEC, prototypes=33, temperature_epochs=5))
    model.center.zero_()
    for step in range(3):
        student = found[f"student{step}"].clone().requires_grad_()
        outputs = iter((student.unflatten(0, (6, 4)), found[f"teacher{step}"].unflatten(0, (2, 4))))
        monkeypatch.setattr(model, "_outputs", lambda *_, outputs=outputs: next(outputs))
        loss = model(views_of(epoch=step), problems.random(0)).total
        loss.backward()
        model.after_step(Moment(step, 3, step))
        assert student.grad is not None
        torch.testing.assert_close(loss[None], found[f"loss{step}"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(student.grad, found[f"student_grad{step}"], rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(model.center[None], found[f"center{step}"], rtol=1e-5, atol=1e-7)


def literal_outputs(encoder: Any, head: Any, view: Tensor) -> Tensor:
    """The head's outputs for one view, in the words of the paper."""
    x = encoder.encode(view).cls[:, 0]
    for layer in (0, 2, 4):
        x = x @ head.mlp[layer].weight.T + head.mlp[layer].bias
        x = F.gelu(x) if layer < 4 else x
    x = x / x.square().sum(1, keepdim=True).sqrt()
    rows = head.last.direction / head.last.direction.square().sum(1, keepdim=True).sqrt()
    return x @ (rows * head.last.scale).T


def literal_loss(model: SelfDistillation, batch: Batch, temperature: float) -> Tensor:
    """Every pair of a teacher's view and another one, one after the other."""
    terms: list[Tensor] = []
    for i in range(2):
        taught = literal_outputs(model.teacher["encoder"], model.teacher["head"], batch.views[i])
        wanted = torch.softmax((taught - model.center) / temperature, -1)
        for j, view in enumerate(batch.views):
            if i != j:
                guess = literal_outputs(model.encoder, model.head, view) / 0.1
                terms.append(-(wanted * torch.log_softmax(guess, -1)).sum(-1).mean())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("epoch", [0, 10, 40])
def test_loss_is_that_of_the_literal_version(epoch: int) -> None:
    temperature = {0: 0.04, 10: 0.04 + 0.03 * 10 / 29, 40: 0.07}[epoch]
    model, batch = build(), views_of(epoch)
    ours = model(batch, problems.random(0)).total
    torch.testing.assert_close(ours, literal_loss(model, batch, temperature))


def test_views_of_a_size_go_through_the_encoder_together() -> None:
    model, seen = build(), []
    model.encoder.norm.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[0]))
    model(views_of(count=3), problems.random(0))
    assert seen == [6, 6]  # two views of three images, twice


def test_no_gradient_reaches_the_teacher_and_the_student_has_one() -> None:
    model = build(replace(SPEC, drop_path=0.2))
    model(views_of(), problems.random(0)).total.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    for name, parameter in model.encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name


def test_a_teachers_outputs_are_constants_to_the_loss() -> None:
    """Were they not, the student's gradient would also hold what the same weights do in the teacher."""
    model, batch = build(), views_of()
    model.begin()
    model(batch, problems.random(0)).total.backward()
    ours = model.head.last.direction.grad
    literal = build()
    literal.begin()
    literal_loss(literal, batch, 0.04).backward()
    assert ours is not None
    theirs = literal.head.last.direction.grad
    assert theirs is not None
    torch.testing.assert_close(ours, theirs)


def test_only_the_student_skips_paths() -> None:
    model, batch = build(replace(SPEC, drop_path=0.5)), views_of(count=8)
    losses, noted = [], []
    for seed in range(2):
        losses.append(model(batch, problems.random(seed)).total.item())
        noted.append(model._output_sum.clone())
        model._output_sum.zero_()
    assert losses[0] != losses[1]
    assert noted[0].equal(noted[1])


def stepped(model: SelfDistillation, steps: int, micro_batch: int = 3, epoch: int = 0) -> None:
    """So many steps of the loop."""
    batches = iter([views_of(epoch)] * steps)
    settings = {"first_step": 0, "seed": 0, "precision": "float32"}
    optimizer = torch.optim.SGD(
        model.parameters()
    )  # AdamW would blow up rounding where a gradient is 0
    for _ in train(
        model, batches, optimizer, Planned(steps, lambda _: 1e-2), device=torch.device("cpu"),
        micro_batch=micro_batch, **settings,  # pyright: ignore[reportArgumentType]
    ):  # fmt: skip
        pass


def test_teacher_follows_with_a_momentum_that_rises_to_one() -> None:
    model = build(replace(SPEC, teacher_momentum=0.6))
    old = {name: value.clone() for name, value in model.teacher["encoder"].named_parameters()}
    stepped(model, 1)
    new = dict(model.encoder.named_parameters())
    for name, slow in model.teacher["encoder"].named_parameters():
        torch.testing.assert_close(slow, 0.6 * old[name] + 0.4 * new[name])
        assert slow.dtype == torch.float32


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.996), (250, 0.99658579), (500, 0.998)])
def test_momentum_at_named_steps(step: int, momentum: float) -> None:
    """Of a thousand; 0.996 + 0.004 x (1 - cos(pi step / 1000)) / 2."""
    assert rising(0.996, step / 1000) == pytest.approx(momentum, abs=1e-8)
    assert rising(0.996, 1.0) == 1.0


def test_momentum_of_a_step_is_that_of_its_share_of_all() -> None:
    model = build(replace(SPEC, teacher_momentum=0.5))
    with torch.no_grad():
        model.teacher["head"].last.direction.zero_()  # type: ignore[union-attr]
    model._output_count += 1
    model.after_step(Moment(step=3, steps=4, epoch=0))
    momentum = 1 - 0.5 * 0.5 * (1 + math.cos(math.pi * 3 / 4))
    teacher = dict(model.teacher.named_parameters())["head.last.direction"]
    torch.testing.assert_close(teacher, (1 - momentum) * model.head.last.direction)


@pytest.mark.parametrize(
    ("epoch", "temperature"), [(0, 0.04), (15, 0.055517241), (29, 0.07), (99, 0.07)]
)
def test_temperature_at_named_epochs(epoch: int, temperature: float) -> None:
    assert SPEC.temperature_at(epoch) == pytest.approx(temperature, abs=1e-9)
    assert replace(SPEC, temperature_epochs=0).temperature_at(0) == 0.07


def test_last_layer_rests_in_the_first_epochs() -> None:
    for epoch, rests in [(0, True), (1, True), (2, False)]:
        model = build(replace(SPEC, frozen_epochs=2))
        before, mlp = model.head.last.direction.clone(), model.head.mlp[0].weight.clone()
        stepped(model, 1, epoch=epoch)
        assert model.head.last.direction.equal(before) == rests
        assert not model.head.mlp[0].weight.equal(mlp)


@pytest.mark.parametrize("scale", ["fixed", "learned"])
def test_norms_of_the_last_layer(scale: Any) -> None:
    model = build(replace(SPEC, last_layer_scale=scale))
    before = model.head.last.scale.clone()
    stepped(model, 1)
    assert model.head.last.scale.equal(before) == (scale == "fixed")


def test_micro_batches_give_the_same_centre_and_weights() -> None:
    spec = replace(SPEC, drop_path=0.3)
    whole, parts = build(spec), build(spec)
    stepped(whole, 2)
    stepped(parts, 2, micro_batch=1)
    for (name, one), other in zip(
        whole.state_dict().items(), parts.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)


def test_starting_weights_are_the_teachers_too() -> None:
    model = build()
    model.begin()
    for name in ("encoder", "head"):
        pairs = zip(
            model.teacher[name].parameters(), getattr(model, name).parameters(), strict=True
        )
        assert all(slow.equal(quick) for slow, quick in pairs)


def test_what_is_drawn_is_the_same_for_any_rows() -> None:
    """A process that has some of the images skips of them what one alone would."""
    model, batch = build(replace(SPEC, drop_path=0.5)), views_of(count=4)
    whole = model._paths(batch, generator("cpu", "test"))
    assert whole is not None
    assert whole.shape == (4, 4, 4, 1, 1)
    assert len(whole.unique()) > 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"prototypes": 1}, "prototypes must be at least 2, got 1"),
        ({"teacher_momentum": 1.1}, "teacher_momentum must lie between 0 and 1, got 1.1"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1, got 1"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(SPEC, **wrong)
