"""What is measured on images, against closed forms."""

import numpy as np
import pytest
import torch

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.doctor.images import correlation_length, fits_statistics, structures, way_to_visible
from unmask.masks import PatchMask
from unmask.patches import patch_grid


def smooth(length: float, side: int = 64, count: int = 40) -> torch.Tensor:
    """Images whose pixels are correlated by exp(-lag / length) in rows and columns: a process of first order in both."""
    random, keep = np.random.default_rng(0), np.exp(-1 / length)
    images = random.normal(size=(count, side, side))
    for axis in (1, 2):
        lines = np.moveaxis(images, axis, 0)
        for place in range(1, side):
            lines[place] = keep * lines[place - 1] + np.sqrt(1 - keep**2) * lines[place]
    return torch.from_numpy(images)[:, None].float()


@pytest.mark.parametrize("length", [1.5, 3.0, 5.0])
def test_correlation_length_of_a_known_process(length: float) -> None:
    """Subtracting each image's mean shortens it a little; so does the finite size."""
    assert correlation_length(smooth(length)) == pytest.approx(length, rel=0.25)


def test_correlation_length_of_noise_and_of_nothing() -> None:
    assert correlation_length(smooth(1e-3)) < 1
    assert correlation_length(torch.full((2, 3, 8, 8), 7, dtype=torch.uint8)) == 0


def test_missing_values_do_not_matter() -> None:
    images = smooth(3.0)
    images[:, :, :4, :4] = torch.nan
    assert correlation_length(images) == pytest.approx(correlation_length(smooth(3.0)), rel=0.1)


def checkerboard(grid: Size) -> PatchMask:
    places = torch.arange(grid.height * grid.width)
    removed = (places // grid.width + places % grid.width) % 2 == 0
    return PatchMask.of(removed[None])


def test_way_to_the_next_visible_patch() -> None:
    assert way_to_visible(checkerboard(Size(4, 4)), Size(4, 4)) == pytest.approx(1.0)
    alone = torch.ones(1, 9, dtype=torch.bool)
    alone[0, 4] = False  # the middle of 3 x 3: four neighbours at 1, four at the square root of 2
    assert way_to_visible(PatchMask.of(alone), Size(3, 3)) == pytest.approx((4 + 4 * 2**0.5) / 8)


@pytest.mark.parametrize(
    ("length", "words"),
    [(40.0, "copied from their neighbours"), (1.0, "smaller than a patch"), (6.0, "")],
)
def test_structures_beside_the_masking(length: float, words: str) -> None:
    size = Size(32, 32)
    (finding,) = structures(length, 4, checkerboard(patch_grid(size, 4)), size)
    assert words in finding.why
    assert (finding.severity == "note") == bool(words)


def test_statistics_of_dark_pictures() -> None:
    bright = (torch.rand(8, 3, 16, 16) * 255).to(torch.uint8)
    assert fits_statistics(bright, IMAGENET).severity == "fine"
    dark = fits_statistics((bright / 40).to(torch.uint8), IMAGENET)
    assert dark.severity == "warning"
    assert "--statistics measure" in dark.change
