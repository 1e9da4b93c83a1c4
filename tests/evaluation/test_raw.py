"""Raw pixels as a baseline: what they are, how large they may be, and where they are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import tiny

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.data import Folder, Tiff
from unmask.evaluation.raw import (
    averaged,
    averaged_size,
    raw_pixels,
    raw_tokens,
    raw_words,
    token_size,
)
from unmask.formats.model import ModelSpec


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_classes(tmp_path_factory.mktemp("raw") / "data", count=4)


@pytest.fixture(scope="module")
def spec(classes: Path) -> ModelSpec:
    return tiny.make_run(classes).model


@pytest.mark.parametrize(
    ("size", "channels", "images", "expected"),
    [
        (Size(32, 32), 3, 10_000, Size(32, 32)),
        (Size(32, 32), 3, 50_000, Size(21, 21)),
        (Size(224, 224), 3, 1000, Size(32, 32)),
        (Size(64, 128), 3, 1000, Size(22, 45)),
        (Size(96, 96), 13, 1000, Size(15, 15)),
        (Size(224, 224), 3, 1_281_167, Size(8, 8)),
        (Size(28, 28), 1, 4000, Size(28, 28)),
        (Size(8, 8), 9000, 10, Size(1, 1)),
    ],
)
def test_the_size_is_bounded(size: Size, channels: int, images: int, expected: Size) -> None:
    found = averaged_size(size, channels, images)
    assert found == expected
    assert found == Size(1, 1) or channels * found.height * found.width <= 3072


def test_pixels_are_normalised_and_averaged_as_in_numpy() -> None:
    statistics = ChannelStatistics(
        mean=(0.4, 0.5), std=(0.2, 0.25), low=(0, 0), high=(1, 1), levels=None, source="test"
    )
    images = torch.randint(0, 256, (3, 2, 6, 4), dtype=torch.uint8)
    exact = images.numpy() / 255
    exact = (exact - np.array(statistics.mean)[:, None, None]) / np.array(statistics.std)[
        :, None, None
    ]
    expected = exact.reshape(3, 2, 3, 2, 2, 2).mean((3, 5))
    found = averaged(images, statistics, Size(3, 2)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    missing = torch.full((1, 2, 4, 4), torch.nan)
    assert averaged(missing, statistics, Size(2, 2)).equal(torch.zeros(1, 2, 2, 2))


def test_pixels_of_a_source_are_kept_for_all_encoders(classes: Path, spec: ModelSpec) -> None:
    source = Folder(path=str(classes)).open()
    first = raw_pixels(spec, source, Size(8, 8))
    assert first.features.vectors.shape == (len(source), 3 * 8 * 8)
    assert first.features.labels.tolist() == source.labels().tolist()
    again = raw_pixels(spec, source, Size(8, 8))
    assert again.from_disk
    assert again.features.vectors.equal(first.features.vectors)
    assert first.features.feature == again.features.feature == "pixels"


def test_tokens_are_the_pixels_of_patches(classes: Path, spec: ModelSpec) -> None:
    source = Folder(path=str(classes)).open()
    pixels = raw_pixels(spec, source, Size(8, 8)).features.vectors.unflatten(1, (3, 8, 8))
    tokens = raw_tokens(spec, source, Size(8, 8)).features.tokens
    assert tokens.shape == (len(source), 1 + 16, 3 * 2 * 2)
    torch.testing.assert_close(tokens[:, 1], pixels[:, :, :2, :2].permute(0, 2, 3, 1).flatten(1))
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(1))


def test_words(spec: ModelSpec) -> None:
    assert raw_words(spec, Size(8, 8)) == "pixels at 8 x 8, normalised as for the encoder"
    averaged = raw_words(spec, Size(4, 2))
    assert averaged == "pixels at 8 x 8, averaged to 4 x 2, normalised as for the encoder"


def test_every_patch_has_as_many_pixels(spec: ModelSpec, classes: Path) -> None:
    large = replace(spec, image_size=Size(224, 224))
    large = replace(large, encoder=replace(spec.encoder, patch_size=16))
    assert token_size(large, 1000) == Size(28, 28)
    assert token_size(replace(spec, image_size=Size(16, 24)), 10**8) == Size(8, 12)
    source = Folder(path=str(classes)).open()
    tokens = raw_tokens(spec, source, Size(4, 4)).features.tokens
    pixels = raw_pixels(spec, source, Size(4, 4)).features.vectors.unflatten(1, (3, 16))
    torch.testing.assert_close(tokens[:, 1:], pixels.mT)


def test_missing_values_do_not_spread(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        image = np.ones((2, 8, 8), np.float32)
        image[0, 0, 0] = np.nan
        np.save(tmp_path / name / "a.npy", image)
    source = Tiff(path=str(tmp_path)).open()
    statistics = ChannelStatistics(
        mean=(0.5, 0.5), std=(1, 1), low=(0, 0), high=(1, 1), values="float32", source="test"
    )
    images = source[0].image[None].float()
    found = averaged(images, statistics, Size(8, 8))
    assert found[0, 0, 0, 0] == 0
    assert bool(found.isfinite().all())
