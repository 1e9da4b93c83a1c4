"""Mixing: what becomes of pixels and labels, drawn from the key alone."""

import random

import numpy as np
import pytest
import torch
from reference import problems

from unmask.contracts import Batch
from unmask.data.mixing import UNMIXED, Mixing
from unmask.errors import SettingsError

STATISTICS = problems.statistics(3)


def batch(count: int = 6) -> Batch:
    found = problems.batch_of(problems.pictures(problems.Problem(), count=count))
    return found._replace(annotations=torch.arange(count) % 4)


def shares(labels: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(labels, 4) * share
    return one_hot + torch.nn.functional.one_hot(other, 4) * (1 - share)


@pytest.mark.parametrize("step", range(5))
def test_mixup_of_labels_is_that_of_pixels(step: int) -> None:
    before = batch()
    after = Mixing(mixup=0.8, cutmix=0.0)(before, 4, STATISTICS, 0, step)
    pixels = before.images.double() / 255
    apart = (pixels - pixels.flip(0)).flatten()
    share = float(((after.images.double() - pixels.flip(0)).flatten() @ apart) / (apart @ apart))
    assert 0 <= share <= 1
    mixture = pixels * share + pixels.flip(0) * (1 - share)
    torch.testing.assert_close(after.images.double(), mixture, atol=1e-6, rtol=0)
    expected = shares(before.annotations, before.annotations.flip(0), share)
    torch.testing.assert_close(after.annotations, expected.float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(after.annotations.sum(1), torch.ones(6))


@pytest.mark.parametrize("step", range(5))
def test_cutmix_of_labels_is_the_area_of_pixels(step: int) -> None:
    before = batch()
    after = Mixing(mixup=0.0, cutmix=1.0)(before, 4, STATISTICS, 0, step)
    pixels = before.images.float() / 255
    own = (after.images == pixels).all(1).all(0)  # [h w]; noise of two images is never equal
    theirs = (after.images == pixels.flip(0)).all(1).all(0)
    assert (own ^ theirs).all()
    rows, columns = (theirs.any(axis).nonzero() for axis in (1, 0))
    assert int(theirs.sum()) == len(rows) * len(columns)  # a rectangle
    share = own.double().mean().item()
    expected = shares(before.annotations, before.annotations.flip(0), share)
    torch.testing.assert_close(after.annotations, expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mixing", [Mixing(cutmix=0.0), Mixing(mixup=0.0)])
def test_several_classes_are_mixed_in_the_shares_of_class_labels(mixing: Mixing) -> None:
    """Pixels are those of class labels; labels are the sum of the two, weighted as one-hot labels are."""
    before = batch()
    several = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]] * 2).float()
    one = mixing(before, 4, STATISTICS, 0, 1)
    found = mixing(before._replace(annotations=several), 4, STATISTICS, 0, 1)
    assert torch.equal(found.images, one.images)
    share = float(one.annotations[0, 0])  # image 0 is of class 0, and the last of class 1
    assert 0 < share < 1
    expected = several * share + several.flip(0) * (1 - share)
    torch.testing.assert_close(found.annotations, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("annotations", [None, (), torch.zeros(6, 16, 16, dtype=torch.long)])
def test_other_annotations_are_not_mixed(annotations: object) -> None:
    """Nor quietly left as they are; erasing alone leaves labels alone, so it may be had."""
    before = batch()._replace(annotations=annotations)
    with pytest.raises(SettingsError, match=r"need labels of whole images, .* --mixing.mixup 0"):
        Mixing()(before, 4, STATISTICS, 0, 1)
    erased = Mixing(mixup=0.0, cutmix=0.0, erasing=1.0)(before, 4, STATISTICS, 0, 1)
    assert erased.annotations is annotations


def test_both_are_taken_in_turn() -> None:
    before = batch()
    mixing, pixels = Mixing(), before.images.float() / 255
    cut = 0
    for step in range(60):
        images = mixing(before, 4, STATISTICS, 0, step).images
        cut += bool(((images == pixels) | (images == pixels.flip(0))).all())
    assert 15 < cut < 45


def test_erased_pixels_are_noise_of_the_mean_and_deviation() -> None:
    before = batch(400)
    after = Mixing(mixup=0.0, cutmix=0.0, erasing=0.25)(before, 4, STATISTICS, 0, 1)
    assert after.annotations.equal(before.annotations)
    changed = (after.images != before.images.float() / 255).any(1)
    erased = changed.flatten(1).any(1)
    assert erased.double().mean().item() == pytest.approx(0.25, abs=0.07)
    for rows in changed[erased]:
        height, width = (int(rows.any(axis).sum()) for axis in (1, 0))
        assert int(rows.sum()) == height * width
        assert height * width <= 16 * 16 / 2.5
    values = after.images.permute(1, 0, 2, 3)[:, changed]
    torch.testing.assert_close(values.mean(1), STATISTICS.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(values.std(1), STATISTICS.std, atol=0.05, rtol=0)


def test_the_key_decides_and_nothing_else() -> None:
    mixing, before = Mixing(erasing=0.5), batch()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    first = mixing(before, 4, STATISTICS, 0, 1)
    after = (torch.rand(1).item(), np.random.rand(), random.random())
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == after
    again, other = (mixing(before, 4, STATISTICS, 0, step) for step in (1, 2))
    assert first.images.equal(again.images)
    assert first.annotations.equal(again.annotations)
    assert not first.images.equal(other.images)
    assert before.images.dtype == torch.uint8


def test_unmixed_batches_stay_as_they_are() -> None:
    before = batch()
    assert UNMIXED(before, 4, STATISTICS, 0, 1) is before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixup": -1.0}, "mixup must not be negative, got -1"),
        ({"erasing": 1.5}, "erasing must lie between 0 and 1, got 1.5"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Mixing(**values)


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.8, cutmix=0.0), Mixing(mixup=0.0, cutmix=1.0)])
def test_a_map_of_classes_is_refused(mixing: Mixing) -> None:
    """Images can be mixed, and maps of classes cannot: the result would be of the wrong shape, without a word."""
    labelled = Batch(
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8),),
        torch.zeros(4, 8, 8, dtype=torch.long),
        torch.arange(4),
        0,
    )
    with pytest.raises(SettingsError, match=r"need labels of whole images.*mixup 0"):
        mixing(labelled, 5, STATISTICS, 0)
    unmixed = Mixing(mixup=0.0, cutmix=0.0, erasing=1.0)
    assert unmixed(labelled, 5, STATISTICS, 0).annotations is labelled.annotations
