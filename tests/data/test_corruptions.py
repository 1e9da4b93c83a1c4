"""The fifteen corruptions beside the statistics of a reference, and what every one must keep to."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.sources import Memory
from torch import Tensor

from unmask.contracts import Size
from unmask.data.corrupted import CorruptedImages
from unmask.data.corruption_parts import plasma
from unmask.data.corruptions import CORRUPTIONS, corrupted
from unmask.data.views import CenterCrop, MarginCrop
from unmask.errors import SettingsError

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "reference" / "corruptions.json").read_text()
)["changes"]
DRAWS = {"snow": 12, "frost": 25, "fog": 25, "motion blur": 12}


def picture(name: str, side: int = 224) -> Tensor:
    """A sample of scikit-image, cut to a square."""
    data = pytest.importorskip("skimage.data")
    whole = Image.fromarray(getattr(data, name)())
    least = min(whole.size)
    left, top = (whole.width - least) // 2, (whole.height - least) // 2
    square = whole.crop((left, top, left + least, top + least))
    square = square.resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_changes_are_those_of_the_reference_at_224_pixels(name: str) -> None:
    """Mean magnitude and root mean square within 10 % of imagecorruptions'; the mean within 0.025."""
    pictures = [picture(one) for one in ("astronaut", "coffee", "chelsea", "rocket")]
    for severity, expected in enumerate(REFERENCE[name], 1):
        found = []
        for position, one in enumerate(pictures):
            for seed in range(DRAWS.get(name, 2)):
                change = (corrupted(one, name, severity, seed, position).float() - one) / 255
                found.append([change.mean(), change.abs().mean(), change.square().mean().sqrt()])
        shift, size, deviation = np.mean(found, 0)
        assert shift == pytest.approx(expected[0], abs=0.025)
        assert size == pytest.approx(expected[1], rel=0.1)
        assert deviation == pytest.approx(expected[2], rel=0.1)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [32, 100])
def test_severity_rises_at_every_size_and_draws_repeat(name: str, side: int) -> None:
    one = picture("astronaut", side)
    changes = []
    for severity in range(1, 6):
        found = [
            (corrupted(one, name, severity, 0, position).float() - one).square().mean().sqrt()
            for position in range(6)
        ]
        changes.append(float(torch.stack(found).mean()))
    # as in the reference: the third glass blur is stronger than the fourth, and frosts and fogs from the third on are alike
    slack = {"glass blur": 0.75, "frost": 0.85, "fog": 0.85, "snow": 0.9, "elastic": 0.95}
    for before, after in itertools.pairwise(changes):
        assert after > slack.get(name, 1.0) * before
    again = corrupted(one, name, 3, 0, 0)
    assert again.equal(corrupted(one, name, 3, 0, 0))
    assert again.shape == one.shape
    assert again.dtype == torch.uint8


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 20, 33), (4, 40, 24), (5, 17, 17)])
def test_any_channels_and_rectangles(name: str, shape: tuple[int, int, int]) -> None:
    image = torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = corrupted(image, name, 5, 1, 2)
    assert found.shape == image.shape
    assert name in ("elastic", "glass blur") or not found.equal(image)


def test_reliefs_of_long_pictures_repeat_and_join() -> None:
    relief = plasma(30, 2500, 1.7, np.random.default_rng(0))
    assert relief.shape == (30, 2500)
    assert relief[:, 1024:2048].tolist() == relief[:, :1024].tolist()
    steps = np.abs(np.diff(relief, axis=1)).max(0)
    assert steps[1023] <= np.delete(steps, [1023, 2047]).max()


def test_draws_differ_between_pictures_and_seeds() -> None:
    image = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    found = {
        corrupted(image, "gaussian noise", 1, seed, position).numpy().tobytes()
        for seed in (0, 1)
        for position in (0, 1)
    }
    assert len(found) == 4


def test_deep_pictures_are_refused() -> None:
    with pytest.raises(SettingsError, match="8 bits"):
        corrupted(torch.zeros(1, 8, 8), "fog", 1, 0, 0)


def test_pictures_are_cut_to_size_before_they_are_corrupted() -> None:
    images = torch.randint(256, (3, 3, 40, 60), generator=torch.Generator().manual_seed(0))
    whole, size = Memory(images.to(torch.uint8)), Size(16, 16)
    for views in (CenterCrop(), MarginCrop()):
        plain = CorruptedImages(whole, views, size, None, 0, 0)
        noisy = CorruptedImages(whole, views, size, "fog", 2, 5)
        for position in range(3):
            (cut,) = views(whole[position].image, size, position)
            assert plain[position].image.equal(cut)
            assert noisy[position].image.equal(corrupted(cut, "fog", 2, 5, position))
    assert plain.typical_size() == size
