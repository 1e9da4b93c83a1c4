"""Noise: how many patches are shown when, what is taken from whom, and that the key alone decides."""

import math

import pytest
import torch
from reference import problems

from unmask.contracts import Batch
from unmask.data.noise import NOISELESS, Noise, PatchKeep
from unmask.errors import SettingsError

STATISTICS = problems.statistics(3)
HALF = PatchKeep(first=0.5, last=0.5)


def batch(count: int = 6) -> Batch:
    return problems.batch_of(problems.pictures(problems.Problem(), count=count))


def side() -> int:
    return problems.Problem().patch_size


def patches() -> int:
    size = problems.Problem().size
    return size.height * size.width // side() ** 2


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 0.25), (0.45, 0.625), (0.3, 0.4375), (0.9, 1.0), (0.95, 1.0)]
)
def test_share_rises_along_half_a_cosine_and_ends_whole(progress: float, share: float) -> None:
    assert PatchKeep(first=0.25, last=1.0).share(progress) == pytest.approx(share)


def test_a_number_is_the_same_share_always() -> None:
    keep = PatchKeep.parse("0.7")
    assert {keep.share(step / 10) for step in range(11)} == {0.7}


def test_text_names_first_and_last() -> None:
    assert PatchKeep.parse("0.25:1") == PatchKeep(first=0.25, last=1.0)


@pytest.mark.parametrize("text", ["", "half", "0.5:", "0.1:0.5:1", "0", "1.5", "-0.2", "nan"])
def test_bad_shares_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"share"):
        PatchKeep.parse(text)


def test_nothing_changes_without_noise() -> None:
    before = batch()
    after = NOISELESS(before, side(), STATISTICS, 0.0, 0, 1)
    assert after.images is before.images
    assert after.shown is None


def test_shown_patches_are_distinct_and_of_the_right_number() -> None:
    after = Noise(patch_keep=HALF)(batch(), side(), STATISTICS, 0.0, 0, 1)
    assert after.shown is not None
    assert after.shown.shape == (6, patches() // 2)
    for row in after.shown.tolist():
        assert len(set(row)) == len(row)
        assert all(0 <= number < patches() for number in row)


def test_all_patches_are_shown_in_the_end() -> None:
    noise = Noise(patch_keep=PatchKeep(first=0.25, last=1.0))
    assert noise(batch(), side(), STATISTICS, 0.95, 0, 1).shown is None


def test_every_patch_is_hidden_equally_often() -> None:
    noise, counts = Noise(patch_keep=HALF), torch.zeros(patches())
    for step in range(200):
        shown = noise(batch(), side(), STATISTICS, 0.0, 0, step).shown
        assert shown is not None
        counts += torch.bincount(shown.flatten(), minlength=patches())
    spread = math.sqrt(1200 * 0.25)  # of a binomial count
    assert ((counts - 600).abs() < 4.5 * spread).all()


def test_swapped_patches_are_those_of_the_mirror_image() -> None:
    before = batch()
    after = Noise(patch_keep=HALF, instead="patches")(before, side(), STATISTICS, 0.0, 0, 1)
    assert after.shown is None
    assert after.annotations is before.annotations
    for number, image in enumerate(after.images):
        own, other = before.images[number], before.images[len(before.images) - 1 - number]
        taken = 0
        for row in range(0, image.shape[1], side()):
            for column in range(0, image.shape[2], side()):
                cell = (slice(None), slice(row, row + side()), slice(column, column + side()))
                assert image[cell].equal(own[cell]) or image[cell].equal(other[cell])
                taken += int(not image[cell].equal(own[cell]))
        assert taken == patches() // 2


def test_pixel_noise_has_the_deviation_asked_for() -> None:
    before = batch(64)
    after = Noise(pixel_noise=0.5)(before, side(), STATISTICS, 0.0, 0, 1)
    added = after.images - before.images.float() / 255
    for channel in range(3):
        asked = 0.5 * STATISTICS.std[channel].item()
        assert added[:, channel].std().item() == pytest.approx(asked, rel=0.03)
        assert added[:, channel].mean().item() == pytest.approx(0, abs=0.03 * asked)


def test_missing_values_stay_missing() -> None:
    before = batch()
    images = before.images.float()
    images[0, 0, 0, 0] = math.nan
    after = Noise(pixel_noise=0.5)(before._replace(views=(images,)), side(), STATISTICS, 0.0, 1)
    assert after.images.isnan().nonzero().tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    "noise",
    [Noise(patch_keep=HALF), Noise(patch_keep=HALF, instead="patches"), Noise(pixel_noise=0.2)],
)
def test_the_key_alone_decides(noise: Noise) -> None:
    torch.manual_seed(1)
    first = noise(batch(), side(), STATISTICS, 0.0, 3, 4)
    torch.manual_seed(2)
    again = noise(batch(), side(), STATISTICS, 0.0, 3, 4)
    later = noise(batch(), side(), STATISTICS, 0.0, 3, 5)
    assert first.images.equal(again.images)
    if first.shown is None:
        assert not first.images.equal(later.images)
    else:
        assert first.shown.equal(again.shown)
        assert not first.shown.equal(later.shown)


@pytest.mark.parametrize("amount", [-0.1, math.inf, math.nan])
def test_bad_pixel_noise_is_refused(amount: float) -> None:
    with pytest.raises(SettingsError, match="pixel_noise"):
        Noise(pixel_noise=amount)
