"""Oriented gradients: against scikit-image, and what becomes of missing values."""

import math

import numpy as np
import pytest
import torch
from reference import problems
from skimage.feature import hog

from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.targets.hog import GradientTarget, Hog

STATISTICS = problems.statistics(3)


def everything(patches: int, images: int = 2) -> PatchMask:
    """A mask of which every patch counts as hidden."""
    order = torch.arange(patches).expand(images, -1)
    removed = torch.ones(images, patches, dtype=torch.bool)
    return PatchMask(torch.arange(images), removed, order[:, :0], order)


def random_images(height: int, width: int, channels: int = 3) -> torch.Tensor:
    shape = (2, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=problems.random(height))


@pytest.mark.parametrize(
    ("height", "width", "patch", "bins"), [(32, 48, 16, 9), (16, 16, 4, 9), (24, 24, 8, 6)]
)
def test_equals_scikit_image(height: int, width: int, patch: int, bins: int) -> None:
    images = random_images(height, width)
    target = Hog(bins=bins).build(patch, 3)
    columns = width // patch
    found = target(images, everything(height // patch * columns), STATISTICS)
    found = found.unflatten(-1, (2, 2, 3, bins))
    cell = patch // 2
    for image in range(2):
        for channel in range(3):
            expected = hog(
                images[image, channel].numpy() / 255,
                orientations=bins,
                pixels_per_cell=(cell, cell),
                cells_per_block=(1, 1),
                block_norm="L2",
                feature_vector=False,
            )[:, :, 0, 0]
            for number in range(found.shape[1]):
                row, column = divmod(number, columns)
                theirs = expected[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                ours = found[image, number, :, :, channel].numpy()
                np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_sizes_are_those_of_maskfeat() -> None:
    assert Hog().build(16, 3).out_dim == 108


def test_only_the_hidden_patches_are_given() -> None:
    images, mask = random_images(16, 16), problems.first_patches_kept(2, 16, 4)
    target = Hog().build(4, 3)
    whole = target(images, everything(16), STATISTICS)
    assert target(images, mask, STATISTICS).equal(whole[:, 4:])


def test_brightness_and_contrast_do_not_matter() -> None:
    images = random_images(16, 16).float()
    target = Hog().build(4, 3)
    first, second = (target(i, everything(16), STATISTICS) for i in (images, 2 * images + 7))
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_an_even_area_has_no_direction() -> None:
    images = torch.full((2, 3, 16, 16), 80, dtype=torch.uint8)
    assert not Hog().build(4, 3)(images, everything(16), STATISTICS).any()


def test_missing_pixels_give_no_gradient_and_missing_cells_no_target() -> None:
    images = random_images(16, 16).float()
    images[0, 0, 4:9, 0:5] = math.nan  # of patch 4 all, and some around it
    target = Hog().build(4, 3)
    found = target(images, everything(16), STATISTICS).unflatten(-1, (2, 2, 3, 9))
    assert found[0, 4, :, :, 0].isnan().all()
    assert found[0, 4, :, :, 1:].isfinite().all()
    assert found[0, 3].isfinite().all()
    assert found[1].isfinite().all()
    guess = torch.ones_like(found, requires_grad=True)
    loss = target.loss(guess.flatten(2), found.flatten(2)).sum()
    loss.backward()
    assert guess.grad is not None
    assert guess.grad.isfinite().all()


@pytest.mark.parametrize(("upright", "number"), [(True, 0), (False, 4)])
def test_lines_are_drawn_along_edges(upright: bool, number: int) -> None:
    """A gradient to the right belongs to an upright edge."""
    target: GradientTarget = Hog().build(16, 1)
    prediction = torch.zeros(1, 4, 2, 2, 1, 9)
    prediction[..., number] = 1
    mask = problems.first_patches_kept(1, 4, 2)
    images = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    drawn = target.pixels(prediction.flatten(2), images, mask, STATISTICS, "true")
    assert drawn.shape == (1, 4, 256)
    cell = drawn[0, 0].unflatten(0, (16, 16))[:8, :8]
    bright = (cell.sum(0 if upright else 1) - 8 * -2).topk(2)
    assert sorted(bright.indices.tolist()) == [3, 4]
    assert drawn.min() == -2
    assert drawn.max() <= 2


def test_odd_patches_are_refused() -> None:
    with pytest.raises(SettingsError, match="a patch of 7 pixels does not allow"):
        Hog().build(7, 3)


def test_no_bins_are_refused() -> None:
    with pytest.raises(SettingsError, match="bins must be at least 1, got 0"):
        Hog(bins=0)
