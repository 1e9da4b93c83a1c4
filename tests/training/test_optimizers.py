"""Weight decay by parameter, and AdamW against its algorithm."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from reference import problems
from torch import Tensor, nn

from unmask.annotations import ObjectLabels
from unmask.contracts import Size
from unmask.encoders import ViT
from unmask.errors import SettingsError
from unmask.tasks import Classify
from unmask.tasks.detect import Detect
from unmask.training.muon import Muon, orthogonal
from unmask.training.optimizers import (
    AdamW,
    AnyClipping,
    ClipEach,
    ClipTogether,
    Lars,
    LayerwiseAdamW,
    clip,
)
from unmask.training.parameter_groups import decay_groups, layer_groups, set_rates


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
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1, got 1"),
        ({"beta2": -0.1}, "beta2 must be at least 0 and below 1, got -0.1"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        AdamW(**values)


def test_layer_groups_are_the_published_ones(published_schedules: dict[str, Any]) -> None:
    """Every parameter by name: scale and weight decay, of a classifier of 12 blocks at 0.65."""
    published = published_schedules["layer_decay"]
    encoder = ViT(patch_size=4, embed_dim=8, depth=published["depth"], num_heads=2)
    statistics = problems.statistics(3)
    model = Classify().build(encoder.build(Size(8, 8), 3, statistics), problems.classes(3))
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = layer_groups(model, published["decay"], published["weight_decay"])
    ours = {
        published_parameter(names[parameter]): (group["scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    theirs = {
        name: (group["lr_scale"], group["weight_decay"])
        for group in published["groups"]
        for name in group["params"]
    }
    assert ours.keys() == theirs.keys()
    for name, (scale, decay) in theirs.items():
        assert ours[name][0] == pytest.approx(scale, rel=1e-12), name
        assert ours[name][1] == decay, name


def published_parameter(name: str) -> str:
    """The published name of a classifier's parameter."""
    name = name.removeprefix("encoder.").removeprefix("head.")
    return name.replace("linear.", "head.")


def test_lower_layers_take_smaller_steps() -> None:
    """Adam's first step is the learning rate itself, whatever the gradient."""
    model = Classify().build(problems.build_encoder(), problems.classes(5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = LayerwiseAdamW(layer_decay=0.5, weight_decay=0.0).build(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["scale"]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scales = {"encoder.pos_embed": 1 / 8, "encoder.blocks.0.mlp.fc1.weight": 1 / 4}
    scales |= {"encoder.blocks.1.mlp.fc1.weight": 1 / 2, "head.linear.weight": 1}
    for name, scale in scales.items():
        moved = (before[name] - model.get_parameter(name)).mean().item()
        assert moved == pytest.approx(0.1 * scale, rel=1e-3), name


def test_lars_equals_the_published_steps(
    vectors: Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]],
) -> None:
    found, _ = vectors("lars")
    layer = nn.Linear(5, 6)
    layer.load_state_dict({"weight": found["w0"], "bias": found["b0"]})
    optimizer = Lars(momentum=0.9, trust=0.001, weight_decay=0.01).build(layer)
    for group in optimizer.param_groups:
        group["lr"] = 0.7
    for step in range(5):
        layer.weight.grad, layer.bias.grad = found[f"gw{step}"], found[f"gb{step}"]
        optimizer.step()
        torch.testing.assert_close(layer.weight.data, found[f"w{step + 1}"], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(layer.bias.data, found[f"b{step + 1}"], atol=1e-6, rtol=1e-6)


def test_lars_without_decay_is_no_plain_sgd() -> None:
    """The trap of another implementation: the trust ratio must not hang on the decay."""
    layer = nn.Linear(3, 2, bias=False)
    before = layer.weight.detach().clone()
    optimizer = Lars(weight_decay=0.0).build(layer)
    optimizer.param_groups[0]["lr"] = 1.0
    layer.weight.grad = 1000 * torch.ones_like(layer.weight)
    optimizer.step()
    assert (layer.weight - before).norm().item() == pytest.approx(
        0.001 * before.norm().item(), 1e-4
    )


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (
            LayerwiseAdamW,
            {"layer_decay": 0.0},
            "layer_decay must be above 0 and at most 1, got 0",
        ),
        (LayerwiseAdamW, {"beta2": 1.0}, "beta2 must be at least 0 and below 1, got 1"),
        (Lars, {"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1"),
        (Lars, {"trust": -1.0}, "trust must not be negative, got -1"),
    ],
)
def test_wrong_values_of_others_are_refused(
    spec: Any, values: dict[str, float], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        spec(**values)


def test_muon_equals_torch_s_for_matrices_and_adamw_for_the_rest() -> None:
    """Three steps; torch iterates in bfloat16 (8 bits), so matrices agree to a few hundredths of their way."""
    ours, theirs = problems.build(), problems.build()
    start = {name: p.detach().clone() for name, p in ours.named_parameters()}
    optimizer = Muon(momentum=0.9, weight_decay=0.1).build(ours)
    named = dict(theirs.named_parameters())
    inner = {n: p for n, p in named.items() if ".blocks." in n and p.ndim == 2}
    inner_ids = {id(p) for p in inner.values()}
    thirds = {
        n: [nn.Parameter(part.clone()) for part in p.detach().chunk(3)]
        for n, p in inner.items()
        if "qkv" in n
    }
    whole = [p for n, p in inner.items() if "qkv" not in n]
    matrices = torch.optim.Muon(
        [*whole, *(part for parts in thirds.values() for part in parts)],
        lr=0.01, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    decayed, exempt = ([p for p in ps if id(p) not in inner_ids] for ps in decay_groups(theirs))
    vectors = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": exempt, "weight_decay": 0.0}],
        lr=0.01, betas=(0.9, 0.95),
    )  # fmt: skip
    random = problems.random(0)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    for _ in range(3):
        for name, parameter in ours.named_parameters():
            if not parameter.requires_grad:
                continue
            gradient = torch.randn(parameter.shape, generator=random)
            parameter.grad, named[name].grad = gradient.clone(), gradient.clone()
            for part, its in zip(thirds.get(name, ()), gradient.chunk(3), strict=False):
                part.grad = its.clone()
        optimizer.step()
        matrices.step()
        vectors.step()
    for name, parameter in ours.named_parameters():
        truth = torch.cat(list(thirds[name])) if name in thirds else named[name]
        if name not in inner:
            torch.testing.assert_close(parameter, truth, atol=1e-6, rtol=1e-6, msg=name)
        else:
            apart, way = (parameter - truth).norm(), (truth - start[name]).norm()
            assert apart < 0.05 * way, (name, apart / way)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 24, 6), (2, 6, 24)])
def test_muon_s_matrices_are_nearly_orthogonal(shape: tuple[int, ...]) -> None:
    """Singular vectors stay, and singular values lie between 0.5 and 1.5 (Jordan, 2024)."""
    matrices = torch.randn(shape, generator=problems.random(1))
    turned = orthogonal(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ turned @ right.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert (values > 0.5).all()
    assert (values < 1.5).all()
    torch.testing.assert_close(inside, torch.diag_embed(values), atol=1e-4, rtol=0)


def test_muon_s_state_is_tensors_that_a_checkpoint_can_hold() -> None:
    model = problems.build()
    optimizer = Muon().build(model)
    model(
        problems.batch_of(problems.pictures(problems.Problem())), problems.random(0)
    ).total.backward()
    optimizer.step()
    learning = [p for p in model.parameters() if p.requires_grad]
    assert set(optimizer.state) == set(learning)
    assert all(isinstance(t, Tensor) for state in optimizer.state.values() for t in state.values())


def parameters_with(*gradients: list[float]) -> list[nn.Parameter]:
    """A parameter for each gradient."""
    found: list[nn.Parameter] = []
    for gradient in gradients:
        found.append(nn.Parameter(torch.zeros(len(gradient))))
        found[-1].grad = torch.tensor(gradient)
    return found


def test_each_gradient_is_clipped_to_a_norm_of_its_own() -> None:
    long, short = parameters_with([3.0, 4.0], [0.3, 0.4])
    ClipEach(norm=1.0)([long, short])
    assert long.grad is not None
    assert short.grad is not None
    torch.testing.assert_close(long.grad, torch.tensor([0.6, 0.8]), atol=1e-6, rtol=0)
    assert short.grad.equal(torch.tensor([0.3, 0.4]))


def test_all_gradients_are_clipped_to_a_norm_together() -> None:
    one, other = parameters_with([3.0, 0.0], [0.0, 4.0])
    ClipTogether(norm=1.0)([one, other])
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, torch.tensor([0.6, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(other.grad, torch.tensor([0.0, 0.8]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("clipping", [ClipEach(norm=0.5), ClipTogether(norm=0.5)])
def test_an_optimizer_clips_as_its_spec_says(clipping: AnyClipping) -> None:
    module = nn.Linear(2, 2)
    optimizer = AdamW(clipping=clipping).build(module)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    clip(optimizer)
    norms = [
        parameter.grad.norm() for parameter in module.parameters() if parameter.grad is not None
    ]
    assert len(norms) == 2
    together = 0.5 * 2**0.5 if isinstance(clipping, ClipEach) else 0.5
    torch.testing.assert_close(torch.stack(norms).norm(), torch.tensor(together), atol=1e-5, rtol=0)


def test_without_clipping_gradients_stay() -> None:
    module = nn.Linear(2, 2)
    optimizer = AdamW().build(module)
    module.weight.grad = torch.full_like(module.weight, 7.0)
    clip(optimizer)
    assert module.weight.grad.equal(torch.full((2, 2), 7.0))


@pytest.mark.parametrize(
    ("done", "decay"), [(0.0, 0.04), (0.25, 0.09272078), (0.5, 0.22), (1.0, 0.4)]
)
def test_weight_decay_at_named_shares_of_the_steps(done: float, decay: float) -> None:
    """0.04 + 0.36 x (1 - cos(pi x done)) / 2, of matrices alone (DINO)."""
    optimizer = AdamW(weight_decay=0.04, last_weight_decay=0.4).build(nn.Linear(2, 2))
    set_rates(optimizer, 0.3, done)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]
    exempt, decayed = (group["weight_decay"] for group in optimizer.param_groups)
    assert exempt == 0
    assert decayed == pytest.approx(decay, abs=1e-8)


def test_weight_decay_stays_where_it_is_not_to_change() -> None:
    optimizer = AdamW(weight_decay=0.04).build(nn.Linear(2, 2))
    set_rates(optimizer, 0.3, 0.7)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.04]


@pytest.mark.parametrize("kind", [ClipEach, ClipTogether])
def test_a_norm_of_nothing_is_refused(kind: type[ClipEach] | type[ClipTogether]) -> None:
    with pytest.raises(SettingsError, match=r"norm must be above 0, got 0.*clipping:none"):
        kind(norm=0.0)


def detector_groups(layer_decay: float, exempt: str) -> dict[str, tuple[float, float]]:
    """(scale, weight decay) of every parameter of a small detector, by its name."""
    encoder = ViT(patch_size=4, embed_dim=8, depth=3, num_heads=2)
    task = Detect(window=2, global_blocks=1, channels=8)
    kind = ObjectLabels(names=("a",), masks=True)
    model = task.build(encoder.build(Size(8, 8), 3, problems.statistics(3)), kind)
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = LayerwiseAdamW(weight_decay=0.1, layer_decay=layer_decay, exempt=exempt)
    return {
        names[parameter]: (group["scale"], group["weight_decay"])
        for group in optimizer.build(model).param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("exempt", ["vectors", "norms", "nothing"])
def test_detector_groups_are_vitdets(exempt: str) -> None:
    """Rates by detectron2's rule; its default exempts torch's layer norms, its ViT-B and L the position table too."""
    groups = detector_groups(0.7, exempt)
    for name, (scale, decay) in groups.items():
        layer = 4  # of depth + 1
        if name.startswith(("encoder.pos_embed", "encoder.patch_embed")):
            layer = 0
        elif ".blocks." in name or ".positions." in name:
            layer = int(name.split(".")[2]) + 1
        assert scale == pytest.approx(0.7 ** (4 - layer)), name
        last = name.rpartition(".")[2]
        token_norm = name.startswith("encoder.") and ".norm" in name
        vector = last in ("bias", "pos_embed") or token_norm or name in channel_norms(groups)
        free = {
            "vectors": vector,
            "norms": token_norm or last == "pos_embed",
            "nothing": False,
        }[exempt]
        assert decay == (0.0 if free else 0.1), name
    assert {scale for scale, _ in groups.values()} == {0.7**n for n in range(5)}


def channel_norms(names: Iterable[str]) -> set[str]:
    """Weights of norms over channels: beside a bias, and after a convolution without one."""
    norms = {
        *(
            f"pyramid.{part}.{n}"
            for part in ("fourfold.4", "twofold.1", "halved.1")
            for n in (1, 3)
        ),
        *(f"pyramid.same.{n}" for n in (1, 3)),
        "pyramid.fourfold.1",
        *(f"heads.{part}.layers.{n}.1" for part in ("box", "mask") for n in range(4)),
    }
    weights = {f"{name}.weight" for name in norms}
    assert weights <= set(names)
    return weights
