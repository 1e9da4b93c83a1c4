"""MoCo v3 against the authors' numbers and a literal version."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import problems
from torch import Tensor, nn

from unmask.contracts import Batch, Moment
from unmask.encoders.joint_norm import BatchNorm
from unmask.objectives.moco3 import MoCo3, MomentumContrast, contrastive_loss, perceptron

Vectors = Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]
SPEC = MoCo3(hidden_dim=10, out_dim=6)


def build(spec: MoCo3 = SPEC) -> MomentumContrast:
    """A small model whose slow copy differs from it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = spec.build(problems.build_encoder())
        for parameter in model.slow.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def batch_of(count: int = 5) -> Batch:
    """Two views of some images."""
    views = tuple(problems.pictures(problems.Problem(), count, seed) for seed in range(2))
    numbers = torch.arange(count)
    return Batch(views, numbers, numbers, 0)


def test_loss_and_gradient_are_the_published_ones(vectors: Vectors) -> None:
    found, _ = vectors("moco_v3_loss")
    one = found["q1"].clone().requires_grad_()
    loss = contrastive_loss(one, found["k2"], 0, 0.2) + contrastive_loss(
        found["q2"], found["k1"], 0, 0.2
    )
    loss.backward()
    assert one.grad is not None
    torch.testing.assert_close(loss, found["loss"].squeeze(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.grad, found["q1_grad"], rtol=1e-5, atol=1e-7)


def literal_head(head: nn.Sequential, x: Tensor) -> Tensor:
    """Linear, batch normalisation, ReLU, as torch has them."""
    for layer in head:
        if isinstance(layer, BatchNorm):
            norm = nn.BatchNorm1d(x.shape[1], affine=layer.weight is not None)
            if layer.weight is not None:
                norm.weight, norm.bias = layer.weight, layer.bias
            x = norm(x)
        else:
            x = layer(x)
    return x


def test_loss_is_that_of_the_literal_version() -> None:
    model, batch = build(), batch_of()
    total = torch.zeros(())
    for a, b in [(0, 1), (1, 0)]:
        token = model.encoder.encode(batch.views[a]).cls[:, 0]
        query = literal_head(model.predictor, literal_head(model.projector, token))
        slow: Any = model.slow["encoder"]
        key = literal_head(model.slow["projector"], slow.encode(batch.views[b]).cls[:, 0])  # type: ignore[arg-type]
        for i in range(5):
            alike = [torch.cosine_similarity(query[i], key[j], dim=0) / 0.2 for j in range(5)]
            own = alike[i] - torch.logsumexp(torch.stack(alike), 0)
            total = total - 2 * 0.2 * own / 5
    ours = model(batch, problems.random(0)).total
    torch.testing.assert_close(ours, total)


def test_no_gradient_reaches_the_slow_copy_or_the_patch_projection() -> None:
    model = build()
    model(batch_of(), problems.random(0)).total.backward()
    assert all(parameter.grad is None for parameter in model.slow.parameters())
    for name, parameter in model.named_parameters():
        still = name.startswith(("slow.", "encoder.patch_embed.", "encoder.pos_embed"))
        assert parameter.requires_grad != still, name
        assert (parameter.grad is None) == still, name


@pytest.mark.parametrize("step", [0, 4, 9])
def test_slow_copy_follows_with_a_momentum_that_rises_to_one(step: int) -> None:
    """Of ten steps: that of the beginning of the next one."""
    model = build()
    expected = 1 - 0.01 * 0.5 * (1 + math.cos(math.pi * (step + 1) / 10))
    old = {name: value.clone() for name, value in model.slow["encoder"].named_parameters()}
    model.after_step(Moment(step, 10, 0))
    quick = dict(model.encoder.named_parameters())
    for name, slow in model.slow["encoder"].named_parameters():
        torch.testing.assert_close(slow, expected * old[name] + (1 - expected) * quick[name])


def test_heads_are_as_published() -> None:
    """Three layers and two, no biases, the last normalisation without parameters."""
    model = build()
    widths = [
        (part.in_features, part.out_features)
        for part in model.projector
        if isinstance(part, nn.Linear)
    ]
    assert widths == [(24, 10), (10, 10), (10, 6)]
    widths = [
        (part.in_features, part.out_features)
        for part in model.predictor
        if isinstance(part, nn.Linear)
    ]
    assert widths == [(6, 10), (10, 6)]
    head = perceptron(4, 8, 2)
    assert {name for name, _ in head.named_parameters()} == {
        "0.weight",
        "1.weight",
        "1.bias",
        "3.weight",
    }
    assert [type(part).__name__ for part in head] == [
        "Linear",
        "BatchNorm",
        "ReLU",
        "Linear",
        "BatchNorm",
    ]


def test_queries_keys_and_values_are_drawn_apart() -> None:
    """Uniform up to sqrt(6 / (2 d)), not sqrt(6 / (4 d))."""
    weight = build().encoder.blocks[0].attn.qkv.weight  # type: ignore[union-attr]
    bound = math.sqrt(6 / (2 * 24))
    assert 0.95 * bound < weight.abs().max() <= bound  # type: ignore[operator]


def test_starting_weights_are_the_slow_copys_too() -> None:
    model = build()
    model.begin()
    pairs = zip(model.slow["encoder"].parameters(), model.encoder.parameters(), strict=True)
    assert all(slow.equal(quick) for slow, quick in pairs)
