"""The views of classifiers: RandAugment in training, a margin left out in testing."""

import numpy as np
import pytest
import torch
from reference.problems import random as generator
from torch import Tensor
from torchvision.transforms import v2

from unmask.contracts import Size
from unmask.data.views import AugmentedCrop, CenterCrop, MarginCrop, RandomCrop
from unmask.errors import DataError, SettingsError


def noise(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.randint(256, (channels, height, width), generator=generator(0), dtype=torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (256, 256), (224, 224), (500, 333)])
def test_test_images_are_resized_to_256_and_cut_to_224(height: int, width: int) -> None:
    image = noise(height, width)
    (view,) = MarginCrop()(image, Size(224, 224), 0)
    bicubic = v2.InterpolationMode.BICUBIC
    expected = v2.Compose([v2.Resize(256, bicubic, antialias=True), v2.CenterCrop(224)])(image)
    apart = (view.int() - expected.int()).abs()
    assert apart.float().mean() < 1  # they round the longer side differently, by a pixel at most


@pytest.mark.parametrize("size", [Size(448, 448), Size(256, 320)])
def test_no_margin_above_224(size: Size) -> None:
    image = noise(300, 500)
    assert MarginCrop()(image, size, 0)[0].equal(CenterCrop()(image, size, 0)[0])


def test_smaller_sizes_keep_the_proportion() -> None:
    """At 28 pixels, an image of 32 is cut and not resized."""
    image = noise(32, 32)
    assert MarginCrop()(image, Size(28, 28), 0)[0].equal(image[:, 2:30, 2:30])


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_wrong_shares_are_refused(share: float) -> None:
    with pytest.raises(SettingsError, match="share must be above 0 and at most 1"):
        MarginCrop(share=share)


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_decided_by_the_key_alone(channels: int) -> None:
    views, image, size = AugmentedCrop(), noise(40, 30, channels), Size(16, 12)
    torch.manual_seed(1), np.random.seed(1)
    found = [views(image, size, 0, 0, index)[0] for index in range(30)]
    after = (torch.rand(1).item(), np.random.rand())
    torch.manual_seed(1), np.random.seed(1)
    assert (torch.rand(1).item(), np.random.rand()) == after
    again = [views(image, size, 0, 0, index)[0] for index in range(30)]
    assert all(one.equal(other) for one, other in zip(found, again, strict=True))
    assert all(view.shape == (channels, 16, 12) and view.dtype == torch.uint8 for view in found)
    plain = [RandomCrop(smallest_share=0.08)(image, size, 0, 0, index)[0] for index in range(30)]
    changed = sum(not one.equal(other) for one, other in zip(found, plain, strict=True))
    assert 12 <= changed < 30  # two operations, each done half the time; some change nothing


def test_other_pixels_are_refused() -> None:
    message = "RandAugment needs uint8 images with 1 or 3 channels, but these have {} of {}"
    for image, words in (
        (noise(8, 8, 4), message.format(4, "uint8")),
        (noise(8, 8).float(), message.format(3, "float32")),
    ):
        with pytest.raises(DataError, match=words):
            AugmentedCrop()(image, Size(4, 4), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"magnitude": 11}, "magnitude must lie between 0 and 10, got 11"),
        ({"magnitude_std": -1.0}, "magnitude_std must not be negative"),
        ({"smallest_share": 0.0}, "smallest_share must be above 0"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        AugmentedCrop(**values)
