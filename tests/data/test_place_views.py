"""Two looks of a tile: where they lie, what they show, and what changes."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from unmask.contracts import Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.in_memory import noise_images
from unmask.data.loader import Wanted
from unmask.data.place_views import TwoLooks, projection, seen
from unmask.data.relighting import blurred
from unmask.errors import SettingsError
from unmask.geo.overlap import overlapping

SIZE = Size(24, 24)


def ramp(height: int = 96, width: int = 96) -> Tensor:
    """The column in the first channel and the row in the second, each from 0 to 1."""
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    return torch.stack([x, y])


def middle(corners: Tensor) -> Tensor:
    """Where the diagonals cross, which is the middle of a tilted look."""
    ahead = projection(corners) @ torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    return (ahead[:2] / ahead[2]).float()


@pytest.mark.parametrize("key", range(20))
def test_looks_lie_within_the_tile_and_near_each_other(key: int) -> None:
    views = TwoLooks(tilt=0.0)
    one, other = views.footprints(0, key)
    assert bool((torch.stack([one, other]) >= 0).all() and (torch.stack([one, other]) <= 1).all())
    sides = [float((look[1] - look[0]).norm()) for look in (one, other)]
    turns = [
        math.degrees(math.atan2(*(look[1] - look[0]).flip(0).tolist())) for look in (one, other)
    ]
    apart = abs((turns[0] - turns[1] + 180) % 360 - 180)
    assert apart <= 2 * views.most_turn + 1e-3
    # the side of a look depends on its turn too, by which its square fits the tile
    assert 0.6 / math.sqrt(2) - 1e-5 <= min(sides) <= max(sides) <= 1 + 1e-5
    assert bool(((one - other).mean(0).abs() <= views.shift * max(sides) + 1e-5).all())


def test_directions_come_from_the_whole_circle() -> None:
    looks = torch.stack([TwoLooks().footprints(0, key)[0] for key in range(60)])
    turns = torch.atan2(*(looks[:, 1] - looks[:, 0]).unbind(1)).rad2deg() // 90
    assert set(turns.tolist()) == {-2.0, -1.0, 0.0, 1.0}


@pytest.mark.parametrize("key", range(5))
def test_a_look_shows_what_lies_between_its_corners(key: int) -> None:
    """On a picture whose colours are coordinates, each pixel holds its own place, tilted ones too."""
    corners = TwoLooks(tilt=0.2).footprints(0, key)[0]
    look = seen(ramp(), corners, SIZE)
    matrix = projection(corners).float()
    for row, column in [(1, 1), (1, 22), (22, 22), (22, 1), (12, 7)]:
        ahead = matrix @ torch.tensor([(column + 0.5) / 24, (row + 0.5) / 24, 1.0])
        assert torch.allclose(look[:, row, column], ahead[:2] / ahead[2], atol=0.012)  # a pixel


def test_views_and_footprints_are_functions_of_the_key() -> None:
    views, image = TwoLooks(), (255 * ramp()).to(torch.uint8)
    one, again, other = views(image, SIZE, 0, 1), views(image, SIZE, 0, 1), views(image, SIZE, 0, 2)
    assert all(a.equal(b) for a, b in zip(one, again, strict=True))
    assert not one[0].equal(other[0])
    assert views.footprints(0, 1).equal(views.footprints(0, 1))


def test_images_that_are_no_parts_of_one_picture_show_ground_apart() -> None:
    feed = CpuFeed(noise_images(SIZE, 3), TwoLooks(), SIZE, seed=0)
    batch = feed.load(Wanted([(0, number) for number in range(6)], 0, SIZE), [])
    assert batch.footprints is not None
    for view in (0, 1):
        alike = overlapping(batch.footprints[:, 0], batch.footprints[:, view])
        assert alike.equal(torch.eye(6, dtype=torch.bool))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_any_channels_and_values(channels: int, dtype: torch.dtype) -> None:
    image = (200 * ramp()[:1]).expand(channels, -1, -1).to(dtype)
    looks = TwoLooks()(image, SIZE, 0, 3)
    plain = TwoLooks(relight=False)(image, SIZE, 0, 3)
    assert [look.shape for look in looks] == [(channels, *SIZE)] * 2
    assert all(look.dtype == dtype and bool(look.isfinite().all()) for look in looks)
    assert not looks[0].equal(plain[0])
    # other light, but the same ground
    flat = torch.stack([looks[0].float().mean(0).flatten(), plain[0].float().mean(0).flatten()])
    assert float(torch.corrcoef(flat)[0, 1]) > 0.8


def test_the_blur_is_torchvisions() -> None:
    image = torch.rand(3, 11, 14, generator=torch.Generator().manual_seed(0))
    for deviation in (0.3, 1.2):
        torch.testing.assert_close(blurred(image, deviation), gaussian_blur(image, [5, 5], [deviation, deviation]))  # fmt: skip


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match="shift"):
        TwoLooks(shift=1.5)
