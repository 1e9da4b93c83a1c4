"""Pixel targets against loops and hand-made cases; pictures that read no hidden pixel."""

import math

import pytest
import torch
from reference import mae as literal
from reference import problems
from reference.problems import Problem, random, statistics
from torch import Tensor

from unmask.contracts import Size
from unmask.masking.random import mask_from_noise
from unmask.masks import PatchMask
from unmask.patches import normalize, patchify
from unmask.targets import NormalizedPixels, Pixels

PROBLEM = Problem()


def some_mask(images: int = 2, patches: int = 16, ratio: float = 0.75) -> PatchMask:
    return mask_from_noise(torch.rand(images, patches, generator=random(1)), ratio)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_targets_equal_the_literal_version(channels: int) -> None:
    problem = Problem(channels=channels)
    images, mask = problems.pictures(problem), some_mask()
    plain = Pixels().build(4, channels)(images, mask, statistics(channels))
    scaled = NormalizedPixels().build(4, channels)(images, mask, statistics(channels))
    for row, image in enumerate(problems.normalized(images, channels)):
        patches = literal.cut(image, 4)[mask.removed_index[row]]
        torch.testing.assert_close(plain[row].double(), patches, atol=1e-5, rtol=1e-5)
        truth = torch.tensor([literal.normalize(patch) for patch in patches.tolist()])
        torch.testing.assert_close(scaled[row], truth, atol=1e-5, rtol=1e-5)


def test_normalised_patches_have_unbiased_variance_one() -> None:
    images = problems.pictures(PROBLEM)
    scaled = NormalizedPixels().build(4, 3)(images, some_mask(), statistics(3))
    mean, variance = scaled.mean(-1), scaled.var(-1, correction=1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-4, rtol=0)  # the 1e-6


def test_a_patch_of_one_colour_becomes_nothing() -> None:
    """The 1e-6 under the root keeps a variance of zero from dividing by it."""
    images = torch.full((2, 3, 16, 16), 77, dtype=torch.uint8)
    plain = problems.Statistics(torch.zeros(3), torch.ones(3))
    scaled = NormalizedPixels().build(4, 3)(images, some_mask(), plain)
    torch.testing.assert_close(scaled, torch.zeros_like(scaled), atol=1e-3, rtol=0)


def test_the_root_adds_a_millionth_as_the_published_code_does() -> None:
    """In a patch whose variance is as small, 1e-5 would give half the values."""
    images = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8)
    images[:, 0, ::4, ::4] += 1  # one of 48 values of each patch
    plain = problems.Statistics(torch.zeros(3), torch.ones(3))
    scaled = NormalizedPixels().build(4, 3)(images, some_mask(1), plain)
    step = 1 / 255
    variance = step**2 / 48
    expected = step * 47 / 48 / math.sqrt(variance + 1e-6)
    torch.testing.assert_close(scaled.amax(-1), torch.full((1, 12), expected), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=["pixels", "normalized"])
def test_error_of_each_patch_is_a_mean_of_squares(target: Pixels | NormalizedPixels) -> None:
    module = target.build(1, 2)
    assert module.out_dim == 2
    guess, truth = (
        torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]),
        torch.tensor([[[3.0, 2.0], [1.0, -1.0]]]),
    )
    assert module.loss(guess, truth).tolist() == [[2.0, 1.0]]
    assert module.loss(guess * math.nan, truth).isnan().all()


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=["pixels", "normalized"])
def test_error_is_float32_whatever_the_guess(target: Pixels | NormalizedPixels) -> None:
    guess, truth = torch.randn(1, 2, 48).bfloat16(), torch.randn(1, 2, 48)
    error = target.build(4, 3).loss(guess, truth)
    torch.testing.assert_close(error, (guess.float() - truth).square().mean(-1))


# Pictures


def test_pixels_are_their_own_picture() -> None:
    images, guess = problems.pictures(PROBLEM), torch.randn(2, 16, 48)
    picture = Pixels().build(4, 3).pixels(guess, images, some_mask(), statistics(3), "neighbors")
    assert torch.equal(picture, guess)


def normalised_picture(images: Tensor, guess: Tensor, mask: PatchMask, levels: str) -> Tensor:
    module = NormalizedPixels().build(4, 3)
    return module.pixels(guess, images, mask, statistics(3), levels)  # type: ignore[arg-type]


def test_true_levels_undo_the_normalisation() -> None:
    images, mask = problems.pictures(PROBLEM), some_mask()
    patches = normalize(patchify(images, 4), statistics(3))
    perfect = torch.stack(
        [torch.tensor([literal.normalize(patch) for patch in image.tolist()]) for image in patches]
    )
    picture = normalised_picture(images, perfect, mask, "true")
    torch.testing.assert_close(picture, patches, atol=1e-5, rtol=1e-5)


def test_levels_of_the_neighbours_read_no_hidden_pixel() -> None:
    images, mask, guess = problems.pictures(PROBLEM), some_mask(), torch.randn(2, 16, 48)
    other = problems.pictures(PROBLEM, seed=8)
    hidden = mask.removed.unflatten(1, (4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    changed = torch.where(hidden[:, None], other, images)
    before = normalised_picture(images, guess, mask, "neighbors")
    assert torch.equal(before, normalised_picture(changed, guess, mask, "neighbors"))
    assert not torch.equal(
        normalised_picture(images, guess, mask, "true"),
        normalised_picture(changed, guess, mask, "true"),
    )


def test_levels_do_not_depend_on_the_order_of_the_indices() -> None:
    images, mask, guess = problems.pictures(PROBLEM), some_mask(), torch.randn(2, 16, 48)
    turned = mask._replace(
        kept_index=mask.kept_index.flip(1), removed_index=mask.removed_index.flip(1)
    )
    torch.testing.assert_close(
        normalised_picture(images, guess, mask, "neighbors"),
        normalised_picture(images, guess, turned, "neighbors"),
    )


@pytest.mark.parametrize("size", [Size(16, 16), Size(8, 24)], ids=str)
def test_levels_of_the_neighbours_equal_a_loop(size: Size) -> None:
    problem = Problem(size=size)
    rows, columns = size.height // 4, size.width // 4
    images = problems.pictures(problem)
    mask = some_mask(patches=rows * columns, ratio=0.25)  # nine or more visible
    guess = torch.randn(2, rows * columns, 48, generator=random(0))
    picture = normalised_picture(images, guess, mask, "neighbors")
    for number, image in enumerate(problems.normalized(images, 3)):
        patches = literal.cut(image, 4)
        means = [float(patch.mean()) for patch in patches]
        deviations = [math.sqrt(float(patch.var(correction=1)) + 1e-6) for patch in patches]
        kept = mask.kept_index[number].tolist()
        for patch in range(rows * columns):
            if patch in kept:
                mean, deviation = means[patch], deviations[patch]
                torch.testing.assert_close(
                    picture[number, patch],
                    guess[number, patch] * deviation + mean,
                    atol=1e-5,
                    rtol=1e-5,
                )
                continue
            distances = sorted(
                (math.dist(divmod(patch, columns), divmod(k, columns)), k) for k in kept
            )
            # of equally distant ones the first in the image
            near = distances[:8]
            whole = sum(1 / distance for distance, _ in near)
            mean = sum(means[k] / distance for distance, k in near) / whole
            deviation = sum(deviations[k] / distance for distance, k in near) / whole
            torch.testing.assert_close(
                picture[number, patch],
                guess[number, patch] * deviation + mean,
                atol=1e-5,
                rtol=1e-5,
            )


def test_fewer_than_eight_visible_patches_are_enough() -> None:
    images = problems.pictures(PROBLEM)
    mask = problems.first_patches_kept(2, 16, 1)
    picture = normalised_picture(images, torch.zeros(2, 16, 48), mask, "neighbors")
    means = normalize(patchify(images, 4), statistics(3)).mean(-1)
    truth = means[:, :1, None].expand(-1, 16, 48)  # the only visible patch's, everywhere
    torch.testing.assert_close(picture, truth, atol=1e-6, rtol=0)
