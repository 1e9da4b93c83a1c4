"""Outlines of objects as pixels, against the COCO API and literal loops."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.contracts import Size
from unmask.data.outlines import (
    OutlineWriter,
    box_of,
    in_fifths,
    polygon_mask,
    run_lengths,
    run_mask,
    usable,
)

coco_mask: Any = pytest.importorskip("pycocotools.mask")

# the oracle has not followed NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDES = st.integers(1, 30)
ORDINARY = st.floats(-8, 40, allow_nan=False)
CORNERS = st.one_of(ORDINARY, st.integers(-3, 33), ORDINARY.map(lambda x: round(x, 1)))


def api_mask(polygons: list[list[float]], size: Size) -> Any:
    """The pixels of some polygons, as the API gives them."""
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    return coco_mask.decode(runs).astype(bool)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.lists(st.tuples(CORNERS, CORNERS), min_size=3, max_size=9))
def test_polygons_have_the_pixels_of_the_coco_api(
    height: int, width: int, corners: list[tuple[float, float]]
) -> None:
    size = Size(height, width)
    flat = [float(value) for corner in corners for value in corner]
    expected = api_mask([flat], size)
    assert np.array_equal(polygon_mask(in_fifths(np.array(flat).reshape(-1, 2)), size), expected)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_go_there_and_back(height: int, width: int, seed: int, share: float) -> None:
    size = Size(height, width)
    mask = np.random.default_rng(seed).random(size) < share
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = run_lengths(runs["counts"], size)
    assert ours is not None
    assert np.array_equal(run_mask(ours, size), mask)
    as_list = run_lengths(ours.tolist(), size)
    assert as_list is not None
    assert np.array_equal(as_list, ours)


@pytest.mark.parametrize(
    "counts",
    [
        [3, 3],
        [5, -1, 2],
        [],
        "",
        "0",
        "not runs!",
        "~" * 40,
        [[6]],
        ["a"],
        [2**70],
        None,
        [2.0, "x"],
    ],
    ids=str,
)
def test_run_lengths_that_do_not_fill_the_picture_are_none(counts: object) -> None:
    assert run_lengths(counts, Size(3, 4)) is None


def test_several_polygons_are_joined_and_objects_keep_their_outlines_in_any_order() -> None:
    size = Size(12, 12)
    squares = [np.array([[x, 1], [x + 3, 1], [x + 3, 4], [x, 4]], float) for x in (0, 2, 8)]
    writer = OutlineWriter()
    writer.polygons(squares)
    writer.nothing()
    writer.run_lengths(np.array([5, 7, 132], np.uint32), size)
    outlines = writer.written()
    assert outlines is not None
    turned = outlines.rows(np.array([2, 1, 0]))
    assert turned.known.tolist() == [True, False, True]
    expected = api_mask([square.ravel().tolist() for square in squares], size)
    joined, runs = turned.mask(2, size), turned.mask(0, size)
    assert joined is not None
    assert runs is not None
    assert np.array_equal(joined, expected)
    assert np.flatnonzero(runs.T).tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert turned.mask(1, size) is None
    assert turned.mask(0, Size(16, 9)) is None  # as many pixels, but other ones


def test_corners_as_shares_give_the_same_pixels() -> None:
    size = Size(37, 53)
    corners = np.array([[3.0, 4.0], [40.0, 9.0], [22.0, 33.0]])
    writer = OutlineWriter(relative=True)
    writer.polygons([corners / [size.width, size.height]])
    outlines = writer.written()
    assert outlines is not None
    mask = outlines.mask(0, size)
    assert mask is not None
    assert np.array_equal(mask, api_mask([corners.ravel().tolist()], size))


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([[0, 0], [1, 1]], False),
        ([[0, 0], [1, 1], [2, 0]], True),
        ([[0, 0], [1, float("nan")], [2, 0]], False),
        ([[0, 0], [1e30, 1], [2, 0]], False),
    ],
)
def test_what_is_a_polygon(corners: Any, expected: bool) -> None:
    assert usable(np.array(corners, float)) is expected


def test_the_box_of_a_mask_equals_a_scan() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        mask = random.random((9, 7)) < 0.06
        places = [(x, y) for y in range(9) for x in range(7) if mask[y, x]]
        found = box_of(mask)
        if not places:
            assert found is None
            continue
        left, top = min(x for x, _ in places), min(y for _, y in places)
        assert found == (left, top, 1 + max(x for x, _ in places), 1 + max(y for _, y in places))
