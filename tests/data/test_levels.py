"""The levels of augmentation of MAE's table 1e: fixed crops and colour jitter, as functions of their key."""

import numpy as np
import pytest
import torch
from reference.problems import random as generator
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from unmask.contracts import Size
from unmask.data.views import FixedCrop, JitteredCrop, RandomCrop
from unmask.errors import DataError, SettingsError


def noise(height: int = 40, width: int = 30, channels: int = 3) -> Tensor:
    return torch.randint(256, (channels, height, width), generator=generator(0), dtype=torch.uint8)


@pytest.mark.parametrize("views", [FixedCrop(), JitteredCrop()], ids=lambda v: type(v).__name__)
def test_the_key_decides_and_the_global_generators_are_left_alone(
    views: FixedCrop | JitteredCrop,
) -> None:
    image, size = noise(), Size(16, 12)
    torch.manual_seed(1)
    np.random.seed(1)
    found = [views(image, size, 0, 0, index)[0] for index in range(20)]
    after = (torch.rand(1).item(), np.random.rand())
    torch.manual_seed(1)
    np.random.seed(1)
    assert (torch.rand(1).item(), np.random.rand()) == after
    again = [views(image, size, 0, 0, index)[0] for index in range(20)]
    assert all(one.equal(other) for one, other in zip(found, again, strict=True))
    assert all(view.shape == (3, 16, 12) and view.dtype == torch.uint8 for view in found)
    assert sum(view.equal(found[0]) for view in found) < 5
    for key in ((1, 0, 0), (0, 1, 0)):
        assert not views(image, size, *key)[0].equal(found[0])


@pytest.mark.parametrize(
    ("height", "width", "size"), [(300, 400, Size(224, 224)), (64, 50, Size(28, 56))]
)
def test_fixed_crops_are_parts_of_the_resized_image(height: int, width: int, size: Size) -> None:
    """Found again in the image as torchvision resizes it, at places all over it, half of them mirrored."""
    image = noise(height, width)
    scale = max(size.height / 0.875 / height, size.width / 0.875 / width)
    bicubic = v2.InterpolationMode.BICUBIC
    whole = F.resize(image, [round(height * scale), round(width * scale)], bicubic, antialias=True)
    room = whole.shape[1] - size.height, whole.shape[2] - size.width
    places, mirrored = set(), 0
    for index in range(24):
        (view,) = FixedCrop()(image, size, 0, 0, index)
        flips, top, left = where(view, whole)
        places.add((top, left))
        mirrored += flips
    assert len(places) > 12
    assert max(top for top, _ in places) <= room[0]
    assert max(left for _, left in places) > room[1] / 2
    assert 4 <= mirrored <= 20  # of 24: three deviations


def where(view: Tensor, whole: Tensor) -> tuple[bool, int, int]:
    """Whether a view is mirrored, and its place in the whole image."""
    height, width = view.shape[1:]
    for flips in (False, True):
        straight = view.flip(-1) if flips else view
        corners = whole[:, : whole.shape[1] - height + 1, : whole.shape[2] - width + 1]
        for top, left in (corners == straight[:, :1, :1]).all(0).nonzero().tolist():
            if whole[:, top : top + height, left : left + width].equal(straight):
                return flips, top, left
    raise AssertionError("the view is no part of the image")


def test_fixed_crop_of_the_whole_image_that_never_flips_is_the_image() -> None:
    views = FixedCrop(share=1.0, flip_probability=0.0)
    image = noise(16, 16)
    assert views(image, Size(16, 16), 3, 2, 1)[0].equal(image)


def test_jitter_without_strength_or_chance_is_the_random_crop() -> None:
    image, size = noise(), Size(16, 12)
    still = JitteredCrop(brightness=0, contrast=0, saturation=0, hue=0)
    for index in range(5):
        (plain,) = RandomCrop()(image, size, 0, 0, index)
        assert still(image, size, 0, 0, index)[0].equal(plain)
        assert JitteredCrop(probability=0)(image, size, 0, 0, index)[0].equal(plain)


def test_jitter_changes_four_of_five_views_by_no_more_than_its_strength() -> None:
    """Of a grey image contrast, saturation and hue change nothing; brightness by up to 0.4 of it."""
    grey, size = torch.full((3, 8, 8), 100, dtype=torch.uint8), Size(8, 8)
    views = JitteredCrop(contrast=0, hue=0)
    levels = torch.stack([views(grey, size, 0, 0, index)[0] for index in range(200)])
    assert (levels == levels[:, :1, :1, :1]).all()
    levels = levels[:, 0, 0, 0].int()
    assert 136 <= int((levels != 100).sum()) <= 184  # 160: four deviations
    assert 59 <= int(levels.min()) < 70
    assert 130 < int(levels.max()) <= 140


@pytest.mark.parametrize("channels", [1, 4])
def test_colours_that_are_none_are_refused(channels: int) -> None:
    with pytest.raises(
        DataError, match=rf"uint8 images with 3 channels.*have {channels} of uint8.*random-crop"
    ):
        JitteredCrop()(noise(channels=channels), Size(8, 8), 0)
    with pytest.raises(DataError, match="have 3 of float32"):
        JitteredCrop()(noise().float(), Size(8, 8), 0)


def test_fixed_crops_take_any_channels_and_missing_values() -> None:
    image = torch.full((5, 20, 20), 3.0)
    image[:, :10] = torch.nan
    (view,) = FixedCrop()(image, Size(8, 8), 0)
    assert view.shape == (5, 8, 8)
    assert 0 < view.isnan().float().mean() < 1


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"share must be above 0 and at most 1, got 1\.2"):
        FixedCrop(share=1.2)
    with pytest.raises(SettingsError, match="flip_probability must lie between 0 and 1, got 2"):
        FixedCrop(flip_probability=2)
    with pytest.raises(SettingsError, match=r"hue must lie between 0 and 0\.5, got 0\.6"):
        JitteredCrop(hue=0.6)
    with pytest.raises(SettingsError, match="probability must lie between 0 and 1, got -1"):
        JitteredCrop(probability=-1)
