"""Weight decay by parameter, and AdamW against its algorithm."""

import math

import pytest
import torch
from reference import problems
from torch import nn

from unmask.errors import SettingsError
from unmask.training.optimizers import AdamW, decay_groups


def test_groups_are_the_published_ones() -> None:
    """Tokens are decayed; vectors and biases are not; fixed positions do not learn at all."""
    model = problems.build()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, exempt = ({names[parameter] for parameter in group} for group in decay_groups(model))
    assert {"encoder.cls_token", "decoder.mask_token", "encoder.patch_embed.proj.weight"} <= decayed
    assert {
        "decoder.pred.weight",
        "decoder.embed.weight",
        "encoder.blocks.0.attn.qkv.weight",
    } <= decayed
    assert {"encoder.norm.weight", "decoder.norm.bias", "encoder.patch_embed.proj.bias"} <= exempt
    assert {"encoder.blocks.1.norm2.weight", "encoder.blocks.0.attn.qkv.bias"} <= exempt
    assert not decayed & exempt
    everything = set(names.values()) - {"encoder.pos_embed", "decoder.pos_embed"}
    assert decayed | exempt == everything
    for name in everything:
        kind = name.rpartition(".")[2]
        token = kind.endswith("token")
        in_norm = ".norm" in name or name.split(".")[-2].startswith("norm")
        assert (name in decayed) == (token or (kind == "weight" and not in_norm))


def test_a_bias_of_two_dimensions_is_exempt() -> None:
    module = nn.Module()
    module.part = nn.Module()
    module.part.bias = nn.Parameter(torch.zeros(2, 2))
    module.token = nn.Parameter(torch.zeros(1, 1, 2))
    decayed, exempt = decay_groups(module)
    (token,), (bias,) = decayed, exempt
    assert token is module.token
    assert bias is module.part.bias


def test_steps_equal_the_algorithm() -> None:
    """Loshchilov and Hutter (2019), algorithm 2, number by number."""
    layer = nn.Linear(1, 1)
    start = {"weight": 0.7, "bias": -0.3}
    with torch.no_grad():
        layer.weight.fill_(start["weight"])
        layer.bias.fill_(start["bias"])
    optimizer = AdamW(beta1=0.9, beta2=0.95, weight_decay=0.05).build(layer)
    gradients = [0.3, -0.2, 0.5]
    rates = [0.1, 0.05, 0.02]
    for gradient, rate in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        layer.bias.grad = torch.full_like(layer.bias, gradient)
        optimizer.step()
    for name, decay in (("weight", 0.05), ("bias", 0.0)):
        value, mean, square = start[name], 0.0, 0.0
        for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
            value -= rate * decay * value
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.95 * square + 0.05 * gradient**2
            value -= rate * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.95**step)) + 1e-8)
        assert layer.get_parameter(name).item() == pytest.approx(value, abs=1e-6)  # float32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta1": 1.0}, r"beta1 must lie in \[0, 1\), got 1.0"),
        ({"beta2": -0.1}, r"beta2 must lie in \[0, 1\), got -0.1"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        AdamW(**values)
