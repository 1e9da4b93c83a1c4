"""Overlaps of four-cornered pieces, against polygons that are clipped side by side."""

import math

import pytest
import torch
from torch import Tensor

from unmask.geo.overlap import overlapping, shared

Point = tuple[float, float]


def clipped(subject: list[Point], clip: list[Point]) -> list[Point]:
    """What a polygon has in common with a convex one (Sutherland and Hodgman, 1974)."""
    for (ax, ay), (bx, by) in zip(clip, clip[1:] + clip[:1], strict=True):

        def side(p: Point, a: Point = (ax, ay), b: Point = (bx, by)) -> float:
            return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

        kept: list[Point] = []
        for p, q in zip(subject, subject[1:] + subject[:1], strict=True):
            if side(p) >= 0:
                kept.append(p)
            if (side(p) > 0) != (side(q) > 0) and side(p) != side(q):
                t = side(p) / (side(p) - side(q))
                kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        subject = kept
        if not subject:
            return []
    return subject


def area(polygon: list[Point]) -> float:
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in pairs)) / 2


def quads(count: int, seed: int, spread: float) -> Tensor:
    """Turned and tilted squares."""
    random = torch.Generator().manual_seed(seed)
    pieces = []
    for turn, side, x, y in torch.rand(count, 4, generator=random).tolist():
        angle, half = 2 * math.pi * turn, (0.5 + side) / 2
        corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
        c, s = math.cos(angle), math.sin(angle)
        pieces.append(
            [[c * u - s * v + spread * x, s * u + c * v + spread * y] for u, v in corners]
        )
    return torch.tensor(pieces) + 0.1 * (torch.rand(count, 4, 2, generator=random) - 0.5)


def points(piece: Tensor) -> list[Point]:
    return [(float(x), float(y)) for x, y in piece]


@pytest.mark.parametrize("spread", [0.5, 2.0, 5.0])
def test_pieces_overlap_where_clipping_leaves_something(spread: float) -> None:
    first, second = quads(12, 0, spread), quads(9, 1, spread)
    found = overlapping(first, second)
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            common = area(clipped(points(one), points(other)))
            assert bool(found[row, column]) == (common > 1e-9), (row, column, common)


def test_shares_are_those_of_clipped_polygons() -> None:
    first, second = quads(30, 2, 0.8), quads(30, 3, 0.8)
    expected = []
    for one, other in zip(first, second, strict=True):
        common = area(clipped(points(one), points(other)))
        whole = area(points(one)) + area(points(other)) - common
        expected.append(common / whole)
    assert 0.0 < min(expected) < 0.4 < max(expected)
    # by 24 x 24 points
    torch.testing.assert_close(shared(first, second), torch.tensor(expected), atol=0.02, rtol=0)


def test_pieces_that_touch_do_not_overlap() -> None:
    """As tiles side by side do."""
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    tiles = torch.stack([square, square + torch.tensor([1.0, 0.0]), square + 0.5, square + 1.0])
    assert overlapping(tiles, tiles).tolist() == [
        [True, False, True, False],
        [False, True, True, False],
        [True, True, True, True],
        [False, False, True, True],
    ]


def test_far_from_the_origin_and_under_autocast_nothing_is_lost() -> None:
    """16 bits do not tell 20,000 from 20,050."""
    first, second = 60 * quads(12, 0, 2.0), 60 * quads(12, 1, 2.0)
    for away in (0.0, 20_000.0):
        with torch.autocast("cpu", torch.bfloat16):
            common, share = overlapping(first + away, second + away), shared(first + away, second + away)  # fmt: skip
        assert torch.equal(common, overlapping(first, second))
        assert 0 < common.sum() < common.numel()
        torch.testing.assert_close(share, shared(first, second), atol=0.005, rtol=0)
