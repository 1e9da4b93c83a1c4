"""The classifier: mean of patch tokens, a linear head that starts near zero, cross-entropy."""

import math

import pytest
import torch
from reference import problems
from reference.problems import Problem

from unmask.contracts import Batch
from unmask.errors import SettingsError
from unmask.tasks import Classify
from unmask.tasks.classify import Classifier


def classifier(classes: int = 5, label_smoothing: float = 0.0) -> Classifier:
    torch.manual_seed(0)
    return Classify(label_smoothing=label_smoothing).build(problems.build_encoder(), classes)


def labelled(count: int = 4) -> Batch:
    batch = problems.batch_of(problems.pictures(Problem(), count=count))
    return batch._replace(labels=torch.arange(count) % 5)


def test_loss_at_the_start_is_that_of_a_guess() -> None:
    loss = classifier()(labelled(), problems.random(0)).total
    assert loss.item() == pytest.approx(math.log(5), abs=1e-3)


def test_head_starts_near_zero() -> None:
    model = classifier(classes=1000)
    assert model.head.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not model.head.bias.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_a_loop(smoothing: float) -> None:
    model, batch = classifier(label_smoothing=smoothing), labelled()
    with torch.no_grad():
        model.head.weight.normal_(generator=problems.random(1))
        model.head.bias.normal_(generator=problems.random(2))
    total = 0.0
    patches = model.encoder.encode(batch.images).patches.detach()
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    for tokens, label in zip(patches, batch.labels.tolist(), strict=True):
        mean = sum(tokens) / len(tokens)
        scores = (weight @ mean + bias).tolist()
        whole = math.log(sum(math.exp(score) for score in scores))
        for number, score in enumerate(scores):
            share = smoothing / 5 + (1 - smoothing) * (number == label)
            total -= share * (score - whole) / len(patches)
    assert model(batch, problems.random(0)).total.item() == pytest.approx(total, abs=1e-5)


def test_permuting_images_permutes_scores() -> None:
    model, images = classifier(), labelled().images
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        model.logits(images[order]), model.logits(images)[order], atol=1e-6, rtol=1e-5
    )


def test_encoder_and_head_are_both_trained() -> None:
    model = classifier()
    model(labelled(), problems.random(0)).total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name != "encoder.norm.bias":
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    weight = model.encoder.patch_embed.proj.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_wrong_smoothing_is_refused(value: float) -> None:
    with pytest.raises(SettingsError, match=r"label_smoothing must lie in \[0, 1\)"):
        Classify(label_smoothing=value)
