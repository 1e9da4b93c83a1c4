"""Resizing has the same bits as torchvision's."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from unmask.contracts import Size
from unmask.data.resizing import bicubic, nearest

SIZES = [Size(5, 9), Size(40, 31), Size(17, 50), Size(23, 19)]
"""Smaller, larger, both, and as it is."""


def image_of(kind: torch.dtype, largest: int = 255) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return (largest * torch.rand(3, 23, 19, generator=random, dtype=torch.float64)).to(kind)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float64, torch.int32])
def test_bicubic(kind: torch.dtype, size: Size) -> None:
    image = image_of(kind)
    for one in (image, image[:, 3:20, 2:11], image.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        expected = F.resize(one, list(size), InterpolationMode.BICUBIC, antialias=True)
        assert bicubic(one, size).equal(expected)


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_any_number_of_channels(channels: int) -> None:
    image = image_of(torch.uint8)[:1].repeat(channels, 1, 1)
    expected = F.resize(image, [9, 30], InterpolationMode.BICUBIC, antialias=True)
    assert bicubic(image, Size(9, 30)).equal(expected)


@pytest.mark.parametrize("size", [Size(1, 1), Size(12, 1), Size(1, 9)], ids=str)
def test_a_side_of_one_pixel(size: Size) -> None:
    """torch's integers are off by many levels there."""
    image = image_of(torch.uint8)
    exact = bicubic(image.double(), size).clamp(0, 255)
    assert (bicubic(image, size).double() - exact).abs().max() < 1.01


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.int16, torch.float32])
def test_nearest(kind: torch.dtype, size: Size) -> None:
    maps = image_of(kind, 100)
    expected = F.resize(maps, list(size), InterpolationMode.NEAREST_EXACT)
    assert nearest(maps, size).equal(expected)
    assert set(nearest(maps, size).unique().tolist()) <= set(maps.unique().tolist())
