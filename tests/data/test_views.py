"""Views: functions of their key, of the right proportions, never normalised."""

import math
from random import Random

import pytest
import torch
from reference.problems import random
from torch import Tensor
from torchvision.transforms import v2

from unmask.contracts import Size
from unmask.data.geometry import resize
from unmask.data.views import (
    AugmentedCrop,
    CenterCrop,
    RandomCrop,
    center_crop,
    draw_box,
    draw_clipped_box,
)
from unmask.errors import SettingsError


def noise(height: int = 20, width: int = 30, channels: int = 3) -> Tensor:
    return torch.randint(256, (channels, height, width), generator=random(0), dtype=torch.uint8)


def ramp(height: int, width: int) -> Tensor:
    """Channel 0 tells the row, channel 1 the column, from 0 to 255."""
    rows = torch.linspace(0, 255, height)[:, None].expand(-1, width)
    columns = torch.linspace(0, 255, width).expand(height, -1)
    return torch.stack([rows, columns]).to(torch.uint8)


def test_the_key_decides_and_nothing_else() -> None:
    views, image, size = RandomCrop(), noise(), Size(8, 8)
    torch.manual_seed(1)
    (first,) = views(image, size, 0, 1, 2)
    torch.manual_seed(2)
    (again,) = RandomCrop()(image, size, 0, 1, 2)
    assert torch.equal(first, again)
    for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(first, views(image, size, *key)[0])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    state = torch.default_generator.get_state()
    RandomCrop()(noise(), Size(8, 8), 0, 0, 0)
    assert torch.equal(torch.default_generator.get_state(), state)


@pytest.mark.parametrize("size", [Size(8, 8), Size(6, 10), Size(64, 48)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_size_and_channels(size: Size, channels: int) -> None:
    """Also of images smaller than the crop: they are enlarged."""
    image = torch.full((channels, 5, 7), 77, dtype=torch.uint8)
    for views in (RandomCrop(), CenterCrop()):
        (view,) = views(image, size, 0, 0, 0)
        assert view.dtype == torch.uint8
        assert torch.equal(view, torch.full((channels, *size), 77, dtype=torch.uint8))


def test_flip_probability() -> None:
    """The column channel rises to the right unless the view is mirrored."""
    image, size = ramp(40, 40), Size(16, 16)

    def mirrored(views: RandomCrop) -> list[bool]:
        crops = [views(image, size, 0, 0, index)[0].float() for index in range(200)]
        return [bool(crop[1, :, 0].mean() > crop[1, :, -1].mean()) for crop in crops]

    assert sum(mirrored(RandomCrop(flip_probability=0.0))) == 0
    assert sum(mirrored(RandomCrop(flip_probability=1.0))) == 200
    assert 70 < sum(mirrored(RandomCrop(flip_probability=0.5))) < 130  # 4 deviations


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_crops_have_the_share_and_the_proportions_asked_for(share: float) -> None:
    """A crop of a ramp spans as many levels as it is high and wide."""
    image, size = ramp(100, 100), Size(32, 32)
    views = RandomCrop(smallest_share=share, flip_probability=0.0)
    areas = []
    for index in range(150):
        view = views(image, size, 0, 0, index)[0].float()
        height = (view[0, -1].mean() - view[0, 0].mean()).item() / 255 * 32 / 31
        width = (view[1, :, -1].mean() - view[1, :, 0].mean()).item() / 255 * 32 / 31
        areas.append(height * width)
        assert 0.65 < width / height < 1.5  # 3/4 to 4/3, and rounding
    assert min(areas) > share - 0.08
    assert min(areas) < share + 0.15
    assert max(areas) > 0.85


def literal_clipped_box(height: int, width: int, least: float, draw: Random) -> tuple[int, ...]:
    """The crop of the published linear probe, in TensorFlow's manner: one draw, and its sides cut to the image's."""
    area = height * width * draw.uniform(least, 1)
    ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
    box_height = min(round(math.sqrt(area / ratio)), height)
    box_width = min(round(math.sqrt(area * ratio)), width)
    top, left = draw.randint(0, height - box_height), draw.randint(0, width - box_width)
    return top, left, box_height, box_width


def test_clipped_crops_are_those_of_the_published_probe() -> None:
    """20,000 boxes of an image of 375 x 500 pixels: mean area, height, width, log of the aspect ratio, and places."""
    whole, count, draw, generator = Size(375, 500), 20_000, Random(0), random(1)
    theirs = torch.tensor([literal_clipped_box(*whole, 0.08, draw) for _ in range(count)])
    ours = torch.tensor([draw_clipped_box(whole, 0.08, generator) for _ in range(count)])
    figures = []
    for top, left, height, width in (theirs.double().T, ours.double().T):
        assert (top + height).max() <= whole.height
        assert (left + width).max() <= whole.width
        values = [height * width / (375 * 500), height, width, (width / height).log(), top, left]
        figures.append(torch.stack(values))
    error = figures[0].std(1) * (2 / count) ** 0.5  # of the difference of two means
    assert ((figures[0].mean(1) - figures[1].mean(1)).abs() < 4 * error).all()
    assert ((figures[0].std(1) / figures[1].std(1) - 1).abs() < 0.02).all()
    assert figures[1][0].mean().item() == pytest.approx(0.52, abs=0.01)
    assert figures[1][1].mean().item() == pytest.approx(297, abs=2)
    redrawn = torch.tensor([draw_box(whole, 0.08, generator) for _ in range(count)]).double()
    assert (redrawn[:, 2] * redrawn[:, 3]).mean() / (375 * 500) == pytest.approx(0.43, abs=0.01)
    assert redrawn[:, 2].mean() == pytest.approx(270, abs=2)


def test_the_spec_chooses_the_rule() -> None:
    """Of a long image torchvision's rule finds no large part; the other one takes the whole height."""
    whole, size = Size(40, 400), Size(8, 8)
    redraw, clip = RandomCrop(smallest_share=0.9), RandomCrop(smallest_share=0.9, too_large="clip")
    for index in range(20):
        assert redraw.geometry(whole, size, 0, 0, index).part == (0, 173, 40, 53)
        part = clip.geometry(whole, size, 0, 0, index).part
        assert part.height == 40
        assert 104 <= part.width <= 146  # of 14,400 to 16,000 pixels, at ratios from 3/4 to 4/3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smallest_share": 0.0}, "smallest_share must be above 0 and at most 1, got 0"),
        ({"smallest_share": 1.1}, "got 1.1"),
        ({"flip_probability": -0.1}, "flip_probability must lie between 0 and 1, got -0.1"),
        ({"flip_probability": 1.5}, "got 1.5"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RandomCrop(**values)


def test_center_crop_of_the_same_size_is_the_image() -> None:
    image = noise(8, 12)
    assert torch.equal(center_crop(image, Size(8, 12)), image)
    assert torch.equal(CenterCrop()(image, Size(8, 12), 1, 2, 3)[0], image)


def test_center_crop_takes_the_middle() -> None:
    image = noise(10, 16)
    assert torch.equal(center_crop(image, Size(10, 8)), image[:, :, 4:12])
    assert torch.equal(center_crop(image, Size(4, 16)), image[:, 3:7])


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (37, 41), (9, 300)], ids=str)
def test_center_crop_keeps_proportions_and_middle(shape: tuple[int, int]) -> None:
    height, width = shape
    crop = center_crop(ramp(height, width), Size(16, 16)).float()
    share = min(height, width) / height, min(height, width) / width
    spans = crop[0, -1].mean() - crop[0, 0].mean(), crop[1, :, -1].mean() - crop[1, :, 0].mean()
    for span, part in zip(spans, share, strict=True):
        assert span.item() / 255 * 16 / 15 == pytest.approx(part, abs=0.08)
    assert crop[0].mean().item() == pytest.approx(127.5, abs=4)
    assert crop[1].mean().item() == pytest.approx(127.5, abs=4)


class TestBox:
    """Beside torchvision's own rule, drawn many times: the same mean and spread of every side."""

    @pytest.mark.parametrize("size", [Size(100, 140), Size(20, 200), Size(300, 31)], ids=str)
    @pytest.mark.parametrize("share", [0.08, 0.5])
    def test_spreads_as_torchvision_does(self, size: Size, share: float) -> None:
        crop = v2.RandomResizedCrop([8, 8], scale=(share, 1.0))
        image = torch.zeros(1, *size, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = [crop.make_params([image]) for _ in range(3000)]
        theirs = torch.tensor(
            [[box[k] for k in ("top", "left", "height", "width")] for box in found]
        ).double()
        generator = random(1)
        ours = torch.tensor([draw_box(size, share, generator) for _ in range(3000)]).double()
        error = (theirs.var(0) / 3000 + ours.var(0) / 3000).sqrt() + 1e-9
        assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error).all()
        assert torch.allclose(ours.std(0), theirs.std(0), rtol=0.08, atol=1e-6)

    def test_lies_within_the_image(self) -> None:
        generator = random(2)
        for _ in range(500):
            top, left, height, width = draw_box(Size(7, 90), 0.2, generator)
            assert 0 <= top <= top + height <= 7
            assert 0 <= left <= left + width <= 90
            assert height > 0 < width


class TestMissingValues:
    def test_a_single_one_does_not_spread(self) -> None:
        image = ramp(64, 64).float()
        image[0, 31, 31] = float("nan")
        small = resize(image, Size(16, 16))
        assert small.isfinite().all()
        whole = resize(ramp(64, 64).float(), Size(16, 16))
        torch.testing.assert_close(small, whole, atol=2.0, rtol=0)

    def test_known_values_alone_count(self) -> None:
        """Of one value wherever it is known, and nothing beyond the hole."""
        image = torch.full((1, 40, 40), 7.0)
        image[:, :20] = float("nan")
        small = resize(image, Size(10, 10))
        assert small[:, :4].isnan().all()
        torch.testing.assert_close(small[:, 5:], torch.full((1, 5, 10), 7.0))

    def test_each_channel_has_its_own(self) -> None:
        image = torch.ones(2, 8, 8)
        image[1] = float("nan")
        small = resize(image, Size(4, 4))
        assert small[0].eq(1).all()
        assert small[1].isnan().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_full_strength_of_every_operation(channels: int) -> None:
    """timm then keeps no bit in posterizing, which Pillow refuses."""
    views, image = AugmentedCrop(magnitude=10, magnitude_std=0.0), noise(channels=channels)
    found = [views(image, Size(8, 8), 0, 0, index)[0] for index in range(150)]
    assert any(bool((view == 0).all()) for view in found)
    assert {view.shape for view in found} == {(channels, 8, 8)}
