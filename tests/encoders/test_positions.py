"""Sine-cosine tables against the published ones and the closed form."""

import math
from typing import Any, get_args

import pytest
import torch
from reference import mae as literal
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.encoders.positions import TableResampling, resized, sine_cosine
from unmask.errors import SettingsError


def test_equals_the_published_tables(vectors: Any) -> None:
    found, _ = vectors("sincos_position")
    whole = found["dim64_grid4x4"]
    torch.testing.assert_close(sine_cosine(64, Size(4, 4)), whole, atol=1e-12, rtol=0)
    rows = found["dim768_grid14x14_rows_0_1_2_15_100_196"]
    table = sine_cosine(768, Size(14, 14))
    torch.testing.assert_close(table[[0, 1, 2, 15, 100, 196]], rows, atol=1e-12, rtol=0)


def test_rectangle_equals_the_literal_version() -> None:
    table = sine_cosine(24, Size(2, 5))
    assert not table[0].any()
    for row in range(2):
        for column in range(5):
            truth = literal.position(24, row, column)
            torch.testing.assert_close(table[1 + row * 5 + column], truth, atol=1e-12, rtol=0)


def test_first_half_tells_the_column() -> None:
    table = sine_cosine(8, Size(2, 3))[1:].reshape(2, 3, 8)
    assert torch.equal(table[0, :, :4], table[1, :, :4])
    assert torch.equal(table[:, 0, 4:], table[:, 2, 4:])
    assert table[0, 1, 0].item() == pytest.approx(math.sin(1), abs=1e-15)
    assert table[1, 0, 6].item() == pytest.approx(math.cos(1), abs=1e-15)


@pytest.mark.parametrize(("width", "nearest"), [(30, "32"), (1, "4"), (193, "192")])
def test_width_that_does_not_split_is_refused(width: int, nearest: str) -> None:
    with pytest.raises(
        SettingsError, match=f"multiple of 4.*got {width}; the nearest is {nearest}"
    ):
        sine_cosine(width, Size(2, 2))


@pytest.mark.parametrize("resampling", get_args(TableResampling))
def test_resizing_to_the_same_grid_changes_nothing(resampling: TableResampling) -> None:
    table = sine_cosine(8, Size(3, 4)).float()[None]
    assert resized(table, Size(3, 4), Size(3, 4), resampling) is table


@pytest.mark.parametrize(
    ("width", "old", "new"),
    [(1280, 16, 32), (768, 14, 24), (768, 14, 8), (768, 14, 10)],
    ids=["H/14 at 448 pixels", "B/16 at 384", "at 128", "at 160"],
)
def test_bicubic_is_the_published_rule(width: int, old: int, new: int) -> None:
    """A learned table: the part of the patches as an image, plain bicubic; the row of the class token as it was."""
    random = torch.Generator().manual_seed(0)
    table = sine_cosine(width, Size(old, old)).float()[None]
    table = table + 0.02 * torch.randn(table.shape, generator=random)
    image = table[:, 1:].reshape(1, old, old, width).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(new, new), mode="bicubic", align_corners=False)
    patches = image.permute(0, 2, 3, 1).reshape(1, new * new, width)
    found = resized(table, Size(old, old), Size(new, new), "bicubic")
    torch.testing.assert_close(found[:, 1:], patches, atol=1e-5, rtol=0)
    assert torch.equal(found[0, 0], table[0, 0])


def exact(width: int, old: int, new: int) -> Tensor:
    """The sine-cosine table at the places of a finer grid, in units of the old one."""
    places = (torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5
    angles = places[:, None] * 10000.0 ** (-torch.arange(width // 4) / (width // 4)).double()
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat(
        [axis[None].expand(new, -1, -1), axis[:, None].expand(-1, new, -1)], dim=-1
    ).flatten(0, 1)


@pytest.mark.parametrize(("resampling", "error"), [("bicubic", 3.64e-3), ("antialiased", 1.61e-3)])
def test_error_to_the_exact_table(resampling: TableResampling, error: float) -> None:
    """Mean over a ViT-H/14's table from 224 to 448 pixels; the figures of docs/weights.md."""
    table = sine_cosine(1280, Size(16, 16)).float()[None]
    found = resized(table, Size(16, 16), Size(32, 32), resampling)[0, 1:]
    assert (found - exact(1280, 16, 32)).abs().mean().item() == pytest.approx(error, rel=0.01)


def test_resizing_keeps_the_class_row_and_a_plane() -> None:
    """A table that rises in a straight line along an axis still does so inside a finer grid, if it is antialiased."""
    plane = torch.arange(8.0).repeat_interleave(8)[:, None].expand(-1, 4)
    table = torch.cat([torch.full((1, 4), 7.0), plane])[None]
    wider = resized(table, Size(8, 8), Size(16, 8), "antialiased")
    assert torch.equal(wider[0, 0], table[0, 0])
    column = wider[0, 1:].reshape(16, 8, 4)[:, 3, 0]
    steps = column.diff()[4:-4]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5), atol=1e-5, rtol=0)
