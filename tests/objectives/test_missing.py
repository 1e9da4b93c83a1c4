"""Missing values: they teach nothing, reach nothing, and are counted nowhere."""

import math

import pytest
import torch
from reference import problems
from reference.problems import Problem
from torch import Tensor

from unmask.masks import PatchMask
from unmask.patches import normalize, patchify
from unmask.targets import AnyTarget, NormalizedPixels, Pixels

PROBLEM = Problem(channels=5)
TARGETS = [Pixels(), NormalizedPixels()]


def holes(share: float = 0.3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images in numbers, and the same with missing values."""
    images = problems.pictures(PROBLEM, count=3).float() / 255
    missing = torch.rand(images.shape, generator=problems.random(seed)) < share
    return images, images.masked_fill(missing, math.nan)


def mask_of(images: Tensor) -> PatchMask:
    removed = torch.rand(len(images), 16, generator=problems.random(2)).argsort(1) < 12
    return PatchMask.of(removed)


def literal_loss(prediction: Tensor, patches: Tensor, mask: PatchMask, normalized: bool) -> float:
    """Image by image, patch by patch, value by value."""
    of_images = []
    for row in range(len(patches)):
        of_patches = []
        for place, number in enumerate(mask.removed_index[row].tolist()):
            values = [float(v) for v in patches[row, number]]
            known = [v for v in values if not math.isnan(v)]
            if not known:
                continue
            mean = sum(known) / len(known)
            var = sum((v - mean) ** 2 for v in known) / max(1, len(known) - 1)
            errors = []
            for guess, value in zip(prediction[row, place].tolist(), values, strict=True):
                if not math.isnan(value):
                    truth = (value - mean) / math.sqrt(var + 1e-6) if normalized else value
                    errors.append((guess - truth) ** 2)
            of_patches.append(sum(errors) / len(errors))
        of_images.append(sum(of_patches) / len(of_patches) if of_patches else 0.0)
    return sum(of_images) / len(of_images)


@pytest.mark.parametrize("target", TARGETS)
def test_loss_is_that_of_the_known_values(target: AnyTarget) -> None:
    model = problems.build(PROBLEM, target)
    _, images = holes()
    images[0, :, :4, :4] = math.nan  # a patch of which nothing is known
    images[1] = math.nan
    mask = mask_of(images)
    prediction = model.predict(images, mask)
    assert prediction.isfinite().all()
    patches = normalize(patchify(images, PROBLEM.patch_size), model.encoder.statistics)
    expected = literal_loss(prediction, patches, mask, isinstance(target, NormalizedPixels))
    assert model.loss(images, mask).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_are_finite_and_missing_values_have_none(target: AnyTarget) -> None:
    model = problems.build(PROBLEM, target)
    _, images = holes(0.6)
    images[2] = math.nan
    model.loss(images, mask_of(images)).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("target", TARGETS)
def test_a_batch_in_parts_gives_the_same_loss(target: AnyTarget) -> None:
    model = problems.build(PROBLEM, target)
    _, images = holes(0.5)
    images[0, :, :8] = math.nan
    mask = mask_of(images)
    parts = [model.loss(images[i : i + 1], PatchMask.of(mask.removed[i : i + 1])) for i in range(3)]
    assert model.loss(images, mask).item() == pytest.approx(sum(parts).item() / 3, rel=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_whole_numbers_give_the_loss_of_the_same_bytes(target: AnyTarget) -> None:
    """Without missing values the mean of means is the paper's loss."""
    model = problems.build(PROBLEM, target)
    images = problems.pictures(PROBLEM, count=3)
    mask = mask_of(images)
    of_bytes, of_numbers = model.loss(images, mask), model.loss(images.float() / 255, mask)
    assert of_numbers.item() == pytest.approx(of_bytes.item(), rel=1e-5)


def test_a_guess_that_is_no_number_is_not_hidden() -> None:
    model = problems.build(PROBLEM)
    _, images = holes()
    with torch.no_grad():
        model.decoder.pred.bias[3] = math.nan
    assert model.loss(images, mask_of(images)).isnan()


def test_missing_values_are_the_mean_of_their_channel_to_the_encoder() -> None:
    encoder = problems.build_encoder(PROBLEM)
    whole, images = holes()
    means = encoder.mean[:, None, None].expand_as(whole)
    filled = torch.where(images.isnan(), means, whole)
    for ours, theirs in zip(encoder.encode(images), encoder.encode(filled), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
