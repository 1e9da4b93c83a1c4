"""Boxes: offsets, matching and sampling against torchvision's and literal loops."""

import pytest
import torch
from reference.problems import random
from torch import Tensor
from torchvision.models.detection import _utils as torchvision_parts
from torchvision.ops import box_iou

from unmask.tasks.boxes import (
    BACKGROUND,
    IGNORED,
    clipped,
    decoded,
    encoded,
    matched,
    sampled,
    with_area,
)

SCALE = (10.0, 10.0, 5.0, 5.0)


def drawn(count: int, seed: int) -> Tensor:
    draw = random(seed)
    corners = torch.rand(count, 2, generator=draw) * 60
    return torch.cat([corners, corners + 2 + torch.rand(count, 2, generator=draw) * 30], 1)


def test_offsets_equal_torchvision() -> None:
    boxes, references = drawn(50, 0), drawn(50, 1)
    coder = torchvision_parts.BoxCoder(SCALE)
    found = encoded(boxes, references, SCALE)
    torch.testing.assert_close(found, coder.encode_single(boxes, references), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(decoded(found, references, SCALE), boxes, atol=1e-4, rtol=1e-4)
    wild = torch.randn(50, 4, generator=random(2)) * 40
    expected = coder.decode_single(wild, references)
    torch.testing.assert_close(decoded(wild, references, SCALE), expected, atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("best_too", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_matches_equal_torchvision(seed: int, best_too: bool) -> None:
    objects, boxes = drawn(8, seed), drawn(400, seed + 10)
    matcher = torchvision_parts.Matcher(0.5, 0.2, allow_low_quality_matches=best_too)
    expected = matcher(box_iou(objects, boxes))
    found = matched(objects, boxes, 0.2, 0.5, best_too)
    assert torch.equal(found, expected)
    assert {BACKGROUND, IGNORED} <= set(found.tolist())


def test_an_object_that_no_box_touches_takes_none() -> None:
    """torchvision would match it with every box, because none overlaps it more."""
    far = torch.tensor([[500.0, 500, 510, 510], [0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [20, 20, 30, 30]])
    assert matched(far, boxes, 0.3, 0.7, best_too=True).tolist() == [1, BACKGROUND]


def test_without_objects_all_is_background() -> None:
    assert matched(torch.zeros(0, 4), drawn(3, 0), 0.3, 0.7, True).tolist() == [BACKGROUND] * 3


@pytest.mark.parametrize(
    ("objects", "background", "expected"),
    [(30, 100, (4, 12)), (2, 100, (2, 14)), (0, 100, (0, 16)), (30, 5, (4, 5)), (0, 0, (0, 0))],
)
def test_samples_have_their_shares(
    objects: int, background: int, expected: tuple[int, int]
) -> None:
    match = torch.cat([torch.arange(objects), torch.full((background,), BACKGROUND)])
    match = torch.cat([match, torch.full((9,), IGNORED)])
    match = match[torch.randperm(len(match), generator=random(1))]
    found = sampled(match, 16, 0.25, random(0))
    assert (len(found.objects), len(found.background)) == expected
    assert bool((match[found.objects] >= 0).all())
    assert bool((match[found.background] == BACKGROUND).all())
    assert len(torch.cat(found).unique()) == sum(expected)
    again = sampled(match, 16, 0.25, random(0))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    if objects > 4:
        assert not torch.equal(found.objects, sampled(match, 16, 0.25, random(1)).objects)


def test_boxes_are_cut_and_empty_ones_are_seen() -> None:
    boxes = torch.tensor([[-5.0, 2, 4, 50], [3, 3, 3, 9], [8, 8, 7, 9], [1, 1, torch.nan, 4]])
    assert clipped(boxes, 20, 10)[0].tolist() == [0, 2, 4, 20]
    assert with_area(boxes).tolist() == [True, False, False, False]
