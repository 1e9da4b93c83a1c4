"""Masks pasted into pictures against a literal loop over pixels."""

import math

import pytest
import torch
from reference.problems import random
from torch import Tensor

from unmask.tasks.pasting import pasted


def literal(mask: Tensor, box: list[float], height: int, width: int) -> Tensor:
    """The bilinear value at each pixel's centre; 0 outside of the mask."""
    left, top, right, bottom = box
    values = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            y = (row + 0.5 - top) / (bottom - top) * len(mask) - 0.5
            x = (column + 0.5 - left) / (right - left) * len(mask) - 0.5
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < len(mask) and 0 <= j < len(mask):
                        values[row, column] += mask[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return values


@pytest.mark.parametrize(
    "box",
    [
        [3.0, 4.0, 17.0, 15.0],
        [0.0, 0.0, 30.0, 20.0],
        [2.3, 5.8, 4.1, 6.2],  # smaller than the mask, and than a pixel
        [25.0, 12.5, 30.0, 20.0],
    ],
)
def test_pasting_equals_a_loop(box: list[float]) -> None:
    mask = torch.rand(6, 6, generator=random(0))
    found = pasted(mask[None], torch.tensor([box]), 20, 30)[0]
    expected = literal(mask, box, 20, 30)
    clear = (expected - 0.5).abs() > 1e-4
    assert torch.equal(found[clear], (expected >= 0.5)[clear])


def test_a_full_mask_fills_its_box() -> None:
    box = torch.tensor([[3.0, 4.0, 17.0, 15.0]])
    found = pasted(torch.ones(1, 28, 28), box, 20, 30)[0]
    expected = torch.zeros(20, 30, dtype=torch.bool)
    expected[4:15, 3:17] = True
    assert torch.equal(found, expected)


def test_no_masks() -> None:
    assert pasted(torch.zeros(0, 28, 28), torch.zeros(0, 4), 5, 7).shape == (0, 5, 7)
