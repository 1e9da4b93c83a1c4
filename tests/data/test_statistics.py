"""Mean and deviation per channel."""

import pytest
import torch
from reference.problems import random
from reference.sources import Memory

from unmask.data import Digits
from unmask.data.statistics import IMAGENET, measure, statistics_of
from unmask.errors import DataError


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_equals_all_pixels_at_once(channels: int) -> None:
    images = torch.randint(256, (7, channels, 6, 5), generator=random(0), dtype=torch.uint8)
    found = measure(Memory(images))
    values = images.double().transpose(0, 1).flatten(1) / 255
    torch.testing.assert_close(found.mean.double(), values.mean(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std.double(), values.std(1, correction=0), atol=1e-6, rtol=0)


def test_unreadable_images_are_left_out() -> None:
    images = torch.randint(256, (6, 1, 4, 4), generator=random(0), dtype=torch.uint8)
    found = measure(Memory(images, broken={2, 5}))
    values = images[[0, 1, 3, 4]].double() / 255
    assert found.mean.item() == pytest.approx(values.mean().item(), abs=1e-6)


def test_nothing_readable_says_so() -> None:
    with pytest.raises(DataError, match=r"none of the images looked at.*can be decoded"):
        measure(Memory(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), broken={0, 1}))


def test_one_colour_does_not_divide_by_zero() -> None:
    found = measure(Memory(torch.full((2, 1, 4, 4), 51, dtype=torch.uint8)))
    assert found.mean.item() == pytest.approx(0.2)
    assert found.std.item() > 0


def test_three_channels_take_the_customary_values() -> None:
    found = statistics_of(Memory(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)))
    assert torch.equal(found.mean, IMAGENET.mean)
    torch.testing.assert_close(IMAGENET.mean, torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(IMAGENET.std, torch.tensor([0.229, 0.224, 0.225]))


def test_digits_are_the_published_set() -> None:
    train, test = Digits().open("train"), Digits().open("test")
    assert Digits().splits() == ("train", "test")
    labels = train.labels() + test.labels()
    assert (len(train), len(test)) == (1442, 355)
    assert [labels.count(digit) for digit in range(10)] == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    image, label = train[0]
    assert label == train.labels()[0] == 0
    assert image.dtype == torch.uint8
    assert image[0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 sixteenths
    assert train.typical_size() == (8, 8)
    assert train.fingerprint != test.fingerprint


def test_digits_to_test_on_are_every_fifth_of_each() -> None:
    train, test = Digits().open("train"), Digits().open("test")
    names = [source.name(i) for source in (train, test) for i in range(len(source))]
    assert len(set(names)) == 1797
    for digit in range(10):
        both = train.labels().count(digit) + test.labels().count(digit)
        assert test.labels().count(digit) == both // 5
    place = test.labels().index(0)
    zeros = sorted(
        int(source.name(i).split()[1])
        for source in (train, test)
        for i in range(len(source))
        if source.labels()[i] == 0
    )
    assert test.name(place) == f"digit {zeros[4]}"
