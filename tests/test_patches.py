"""Patches: the published layout, round trips, and messages."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import mae as literal
from reference.problems import random, statistics

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.patches import (
    denormalize,
    gather,
    normalize,
    patch_grid,
    patchify,
    put_back,
    size_of,
    unpatchify,
)


@pytest.mark.parametrize("name", ["mae_tiny_pixel", "mae_tiny_normpix"])
def test_equals_the_published_layout(name: str, vectors: Any) -> None:
    found, settings_ = vectors(name)
    patches = patchify(found["images"], settings_["patch_size"])
    torch.testing.assert_close(patches, found["patches"], atol=0, rtol=0)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    patch=st.integers(1, 5),
    channels=st.integers(1, 5),
)
def test_round_trip_and_literal_layout(rows: int, columns: int, patch: int, channels: int) -> None:
    images = torch.rand(2, channels, rows * patch, columns * patch, generator=random(0))
    patches = patchify(images, patch)
    for ours, image in zip(patches, images, strict=True):
        assert torch.equal(ours, literal.cut(image, patch))
    assert torch.equal(unpatchify(patches, patch, Size(rows, columns)), images)


def test_grid_and_size() -> None:
    assert patch_grid(Size(224, 320), 16) == Size(14, 20)
    assert size_of(torch.zeros(1, 3, 5, 7)) == Size(5, 7)


@pytest.mark.parametrize(
    ("size", "patch", "flag"),
    [
        (Size(225, 224), 16, "224"),
        (Size(100, 200), 16, "96x192"),
        (Size(3, 3), 16, "16"),
        (Size(224, 230), 14, "224"),
    ],
    ids=str,
)
def test_size_that_the_patch_does_not_divide(size: Size, patch: int, flag: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"{patch} x {patch}; the nearest .*\(--image-size {flag}\)"
    ):
        patch_grid(size, patch)


def test_gather_takes_the_patches_of_the_named_image() -> None:
    images = torch.randint(256, (3, 2, 8, 8), generator=random(0), dtype=torch.uint8)
    image, index = torch.tensor([2, 0]), torch.tensor([[3, 1, 1], [0, 2, 3]])
    chosen = gather(images, image, index, 4, statistics(2))
    mean, std = (value.double()[:, None, None] for value in statistics(2))
    for row in range(2):
        values = (images[image[row]].double() / 255 - mean) / std
        truth = literal.cut(values, 4)[index[row]]
        torch.testing.assert_close(chosen[row].double(), truth, atol=1e-5, rtol=1e-5)  # float32


def test_normalising_treats_bytes_as_0_to_1_and_reals_as_they_are() -> None:
    plain = Statistics(torch.tensor([0.5, 0.0]), torch.tensor([0.25, 1.0]))
    reals = torch.tensor([[1.0, 1.0, 0.5, -3.0]])
    assert normalize(reals, plain).tolist() == [[2.0, 1.0, 0.0, -3.0]]
    levels = torch.tensor([[255, 255, 0, 51]], dtype=torch.uint8)
    torch.testing.assert_close(
        normalize(levels, plain), torch.tensor([[2.0, 1.0, -2.0, 0.2]]), atol=1e-6, rtol=0
    )


def test_denormalising_is_the_inverse() -> None:
    patches = torch.rand(2, 3, 12, generator=random(0))
    there_and_back = denormalize(normalize(patches, statistics(3)), statistics(3))
    torch.testing.assert_close(there_and_back, patches, atol=1e-6, rtol=0)


def test_put_back_replaces_only_what_is_named() -> None:
    patches = torch.zeros(1, 4, 2)
    index, values = torch.tensor([[3, 1]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert put_back(patches, index, values).tolist() == [[[0, 0], [3, 4], [0, 0], [1, 2]]]
    assert not patches.any()
