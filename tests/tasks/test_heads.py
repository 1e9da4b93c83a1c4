"""Heads against published classifiers, timm, and equations written out."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from reference import problems
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import IMAGENET
from unmask.contracts import Batch, Size
from unmask.encoders import ViT
from unmask.encoders.vit import VisionTransformer
from unmask.tasks import Classify
from unmask.tasks.classifier import Classifier
from unmask.tasks.heads import (
    AnyHead,
    AttentiveHead,
    ClassTokenHead,
    LinearHead,
    MeanHead,
    TokenProbe,
)

Vectors = Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]


def published(found: dict[str, Tensor], head: AnyHead) -> Classifier:
    """The classifier with the published weights."""
    weights = {
        name.removeprefix("weights."): value
        for name, value in found.items()
        if name.startswith("weights.")
    }
    width, depth = (
        weights["cls_token"].shape[-1],
        1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
    )
    spec = ViT(patch_size=8, embed_dim=width, depth=depth, num_heads=3)
    model = Classify(head=head).build(
        build(spec, Size(32, 32)), problems.classes(len(weights["head.bias"]))
    )
    state = model.state_dict()
    for name, value in weights.items():
        ours = {"head": "head.linear", "fc_norm": "head.fc_norm"}
        owner, _, rest = name.partition(".")
        ours_name = f"{ours[owner]}.{rest}" if owner in ours else f"encoder.{name}"
        assert state[ours_name].shape == value.shape, name
        state[ours_name] = value
    model.load_state_dict(state)
    return model


def build(spec: ViT, size: Size) -> VisionTransformer:
    """An encoder that takes pixels as they are."""
    encoder = spec.build(size, 3, IMAGENET.tensors())
    encoder.mean.zero_()
    encoder.std.fill_(1.0)
    return encoder


def test_fine_tuning_head_equals_the_published_code(vectors: Vectors) -> None:
    found, _ = vectors("vit_finetune")
    model = published(found, MeanHead()).eval()
    torch.testing.assert_close(
        model.predict(found["images"]), found["logits"], atol=1e-5, rtol=1e-5
    )


def test_probe_equals_the_published_code(vectors: Vectors) -> None:
    """In train mode, where the batch's own statistics count."""
    found, _ = vectors("vit_probe")
    model = published(found, TokenProbe()).train()
    expected = found["probe_logits_train_mode"]
    torch.testing.assert_close(model.predict(found["images"]), expected, atol=1e-4, rtol=1e-4)


def test_probe_normalises_with_the_right_epsilon_and_keeps_running_statistics() -> None:
    head = TokenProbe().build(8, 3)
    norm = head.batch_norm
    assert (norm.eps, norm.affine, norm.training) == (1e-6, False, True)
    tokens = torch.randn(16, 5, 8, generator=problems.random(0))
    head.train()(tokens, nn.Identity())
    first = tokens[:, 0]
    torch.testing.assert_close(norm.running_mean, 0.1 * first.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * first.var(0))


def timm_and_ours(pool: str, generator: torch.Generator) -> tuple[nn.Module, VisionTransformer]:
    """timm's classifier with weights off their initial values, and an encoder of ours with its shape."""
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=3,
        num_classes=5,
        global_pool=pool,
    )
    for parameter in theirs.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return theirs, build(ViT(patch_size=8, embed_dim=24, depth=3, num_heads=3), Size(32, 32))


def test_class_token_fine_tuning_equals_timm_forward_and_backward() -> None:
    """The published classifier is timm's ViT with the class token as its feature; label smoothing 0.1 as in table 9."""
    generator = problems.random(3)
    theirs, encoder = timm_and_ours("token", generator)
    theirs.train()
    task = Classify(head=ClassTokenHead(), label_smoothing=0.1)
    model = task.build(encoder, problems.classes(5)).train()

    def our_name(name: str) -> str:
        return f"head.linear{name[4:]}" if name.startswith("head.") else f"encoder.{name}"

    weights = {our_name(name): value for name, value in theirs.state_dict().items()}
    model.load_state_dict(model.state_dict() | weights)
    images = torch.rand(4, 3, 32, 32, generator=generator)
    truth = torch.tensor([0, 4, 2, 1])
    loss = model(Batch((images,), truth, torch.arange(4), 0), problems.random(0)).total
    logits = theirs(images)
    expected = F.cross_entropy(logits, truth, label_smoothing=0.1)
    torch.testing.assert_close(model.predict(images), logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    loss.backward()
    expected.backward()
    gradients = {our_name(name): parameter.grad for name, parameter in theirs.named_parameters()}
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert ours.keys() == gradients.keys()  # no fc_norm, and the encoder's norm is trained
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_class_token_head_begins_near_zero() -> None:
    head = ClassTokenHead().build(400, 50)
    assert head.linear.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not head.linear.bias.any()


def test_pooled_head_equals_timm_with_the_same_weights() -> None:
    generator = problems.random(2)
    theirs, encoder = timm_and_ours("avg", generator)
    theirs.eval()
    model = Classify().build(encoder, problems.classes(5)).eval()
    state = model.state_dict()
    for name, value in theirs.state_dict().items():
        ours = {"head": "head.linear", "fc_norm": "head.fc_norm"}
        owner, _, rest = name.partition(".")
        state[f"{ours[owner]}.{rest}" if owner in ours else f"encoder.{name}"] = value
    model.load_state_dict(state)
    images = torch.rand(4, 3, 32, 32, generator=generator)
    torch.testing.assert_close(model.predict(images), theirs(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attentive_head_equals_its_equations() -> None:
    head = AttentiveHead().build(8, 3).eval()  # its running mean is 0, its deviation 1
    tokens = torch.randn(2, 5, 8, generator=problems.random(1))
    norm = nn.LayerNorm(8)
    for image, scores in zip(tokens, head(tokens, norm), strict=True):
        patches = norm(image)[1:]
        weights = []
        for patch in patches:
            weights.append(float(head.query[0, 0] @ head.key(patch)) / 8**0.5)
        shares = torch.tensor(weights).softmax(0)
        pooled = sum(
            share * head.value(patch) for share, patch in zip(shares, patches, strict=True)
        )
        torch.testing.assert_close(scores, head.linear(pooled), atol=1e-5, rtol=1e-5)


def test_wide_attentive_heads_have_64_channels() -> None:
    assert AttentiveHead().build(192, 3).num_heads == 3
    assert AttentiveHead().build(48, 3).num_heads == 1


@pytest.mark.parametrize(
    ("head", "token"),
    [
        (MeanHead(), 1),
        (LinearHead(), 1),
        (AttentiveHead(), 1),
        (TokenProbe(), 0),
        (ClassTokenHead(), 0),
    ],
)
def test_heads_read_only_their_tokens(head: AnyHead, token: int) -> None:
    module = head.build(8, 3).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=problems.random(4))
    tokens = torch.randn(2, 5, 8, generator=problems.random(1), requires_grad=True)
    module(tokens, nn.LayerNorm(8)).sum().backward()
    seen = tokens.grad.abs().sum((0, 2)) > 0
    assert seen.tolist() == ([True] + [False] * 4 if token == 0 else [False] + [True] * 4)
