"""Codes of patches: found again where they are known, scored by cross-entropy, drawn as typical patches."""

import math

import pytest
import torch
from reference import problems

from unmask.errors import DataError, SettingsError
from unmask.targets import KMeansTokens
from unmask.targets.tokens import TokenTarget, nearest

STATISTICS = problems.statistics(3)
MASK = problems.first_patches_kept(2, 16, 4)
VALUES = 48


def normal(patches: torch.Tensor) -> torch.Tensor:
    apart = patches - patches.mean(-1, keepdim=True)
    return apart / apart.std(-1, correction=0, keepdim=True)


@pytest.fixture(scope="module")
def target() -> TokenTarget:
    """Five typical patches, far apart, each in a hundred forms."""
    typical = torch.randn(5, VALUES, generator=problems.random(1))
    several = typical.repeat(100, 1) + 0.1 * torch.randn(500, VALUES, generator=problems.random(2))
    levels = torch.rand(500, 2, 1, generator=problems.random(3)) + 0.5
    target = KMeansTokens(codes=5).build(4, 3)
    assert not target.fitted
    target.fit(several * levels[:, 0] + levels[:, 1])
    assert target.fitted
    return target


def test_typical_patches_are_found_whatever_their_levels(target: TokenTarget) -> None:
    typical = normal(torch.randn(5, VALUES, generator=problems.random(1)))
    nearest = torch.cdist(typical, target.centers).min(1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3, 4]
    assert nearest.values.max() < 0.5  # two of the typical are about 10 apart
    assert target.perplexity.item() == pytest.approx(5, abs=0.01)


def test_a_code_is_the_nearest_typical_patch(target: TokenTarget) -> None:
    images = problems.pictures(problems.Problem())
    found = target(images, MASK, STATISTICS)
    assert found.shape == (2, 12, 1)
    mean, std = STATISTICS
    for row in range(2):
        for place, number in enumerate(MASK.removed_index[row].tolist()):
            down, right = (4 * part for part in divmod(number, 4))
            pixels = images[row, :, down : down + 4, right : right + 4].permute(1, 2, 0) / 255
            patch = normal(((pixels - mean) / std).flatten())
            distances = [(patch - center).norm().item() for center in target.centers]
            assert found[row, place] == distances.index(min(distances))


def test_codes_are_the_same_in_every_precision() -> None:
    """Typical patches so near to each other that bfloat16 could not tell them apart."""
    noise = torch.randn(64, VALUES, generator=problems.random(8))
    centers = torch.randn(VALUES, generator=problems.random(9)) + 0.02 * noise
    patches = centers.repeat(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest(patches, centers)
        rough = (patches @ centers.T - centers.square().sum(1) / 2).argmax(-1)
    assert torch.equal(found, torch.arange(64).repeat(4))
    assert not torch.equal(rough, found)


def test_error_is_the_cross_entropy_of_each_patch(target: TokenTarget) -> None:
    prediction = torch.randn(2, 12, 5, generator=problems.random(4))
    codes = torch.randint(5, (2, 12, 1), generator=problems.random(5)).float()
    codes[0, 3] = math.nan
    errors = target.loss(prediction, codes)
    for row in range(2):
        for place in range(12):
            scores = prediction[row, place].tolist()
            if (row, place) == (0, 3):
                assert errors[row, place] == 0
                continue
            whole = math.log(sum(map(math.exp, scores)))
            expected = whole - scores[int(codes[row, place])]
            assert errors[row, place].item() == pytest.approx(expected, abs=1e-5)


def test_a_patch_without_values_has_no_code(target: TokenTarget) -> None:
    images = problems.pictures(problems.Problem()).float()
    images[0, :, 4:8, 0:4] = math.nan  # patch 4, the first hidden one
    images[0, 0, 4, 4] = math.nan
    found = target(images, MASK, STATISTICS)
    assert found[0, 0].isnan().all()
    assert found[0, 1:].isfinite().all()


def test_pictures_hold_typical_patches_at_their_levels(target: TokenTarget) -> None:
    images = problems.pictures(problems.Problem())
    scores = torch.randn(2, 16, 5, generator=problems.random(6))
    drawn = target.pixels(scores, images, MASK, STATISTICS, "true")
    typical = target.centers[scores.argmax(-1)]
    torch.testing.assert_close(normal(drawn), normal(typical), atol=1e-4, rtol=0)


def test_fitting_twice_gives_the_same() -> None:
    patches = torch.randn(300, VALUES, generator=problems.random(7))
    first, second = (KMeansTokens(codes=16).build(4, 3) for _ in range(2))
    first.fit(patches)
    second.fit(patches)
    assert first.centers.equal(second.centers)


def test_more_codes_than_patches_are_refused() -> None:
    with pytest.raises(
        DataError, match="512 codes need at least as many patches, and there are 40; use fewer"
    ):
        KMeansTokens().build(4, 3).fit(torch.randn(40, VALUES))


def test_patches_that_all_get_one_code_are_refused() -> None:
    """As of blank images, or where k-means went wrong."""
    with pytest.raises(
        DataError, match="all 50 training patches the same code, so there is nothing"
    ):
        KMeansTokens(codes=4).build(4, 3).fit(torch.full((50, VALUES), 0.5))


def test_one_code_is_refused() -> None:
    with pytest.raises(SettingsError, match="codes must be at least 2, got 1"):
        KMeansTokens(codes=1)
