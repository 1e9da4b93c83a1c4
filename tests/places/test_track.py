"""Tracks through fields against all tracks that there are, one by one."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from places.test_fields import grid
from scipy import stats

from unmask.places.field import Field, Peak
from unmask.places.locating import Located
from unmask.places.looks import View
from unmask.places.track import chance_of, on_track, reached, smoothed

VIEW = View(60.0, 0.0)


def fields_of(count: int, rows: int, columns: int, seed: int, holes: bool = True) -> list[Field]:
    random = np.random.default_rng(seed)
    made = grid(rows, columns)
    fields = []
    hole = random.random((rows, columns)) < (0.15 if holes else 0)
    for _ in range(count):
        scores = random.normal(0, 1, (rows, columns)).astype(np.float32)
        scores = np.where(hole, -np.inf, scores).astype(np.float32)
        fields.append(Field(made, scores, [VIEW], np.zeros(scores.shape, np.int16)))
    return fields


@pytest.mark.parametrize("numbers", [None, (0, 2, 3, 6)])
@pytest.mark.parametrize("metres", [3.0, 10.5, 14.5, 23.0])
def test_each_cell_has_the_mean_of_the_best_track_through_it(
    metres: float, numbers: tuple[int, ...] | None
) -> None:
    """Cells are 10 m apart: a step of up to 3 m goes to a diagonal one too, since pictures lie anywhere in their cells."""
    rows, columns = 2, 6
    fields = fields_of(4, rows, columns, int(metres))
    cells = list(product(range(rows), range(columns)))
    gaps = (1, 1, 1) if numbers is None else (2, 1, 3)
    down, across = fields[0].grid.steps[1], fields[0].grid.steps[0]
    expected = [np.full((rows, columns), -np.inf) for _ in fields]
    for track in product(cells, repeat=4):
        if any(
            math.hypot((a[0] - b[0]) * down, (a[1] - b[1]) * across)
            > gap * metres + math.hypot(down, across)
            for (a, b), gap in zip(pairwise(track), gaps, strict=True)
        ):
            continue
        mean = sum(float(f.scores[cell]) for f, cell in zip(fields, track, strict=True)) / 4
        for one, cell in zip(expected, track, strict=True):
            one[cell] = max(one[cell], mean)
    for found, one in zip(smoothed(fields, metres, numbers), expected, strict=True):
        np.testing.assert_allclose(found.scores, one, atol=1e-5)


@pytest.mark.parametrize("metres", [0.5, 10.5, 31.0, 500.0])
def test_the_highest_score_within_reach(metres: float) -> None:
    (field,) = fields_of(1, 9, 13, 7)
    across, down = field.grid.steps
    found = reached(field.scores, field.grid, metres)
    rows, columns = np.indices((9, 13))
    for row, column in product(range(9), range(13)):
        near = np.hypot((rows - row) * down, (columns - column) * across) <= metres
        assert found[row, column] == field.scores[near].max()


def test_a_track_corrects_a_picture_that_looks_like_another_place() -> None:
    fields = fields_of(5, 12, 12, 3, holes=False)
    for number, field in enumerate(fields):
        field.scores[:] *= 0.1
        field.scores[4, 2 + number] = 1.0
    fields[2].scores[4, 4] = 0.5
    fields[2].scores[11, 11] = 1.0  # alone, this would be the answer
    found = [np.unravel_index(int(one.scores.argmax()), (12, 12)) for one in smoothed(fields, 11.0)]
    assert [tuple(map(int, cell)) for cell in found] == [(4, 2 + number) for number in range(5)]


def test_steps_shorter_than_a_cell_follow_a_slow_flight() -> None:
    """Pictures 2.5 m apart over cells of 10 m."""
    fields = fields_of(20, 8, 8, 4, holes=False)
    for number, field in enumerate(fields):
        field.scores[:] *= 0.1
        field.scores[3, 1 + number // 4] = 1.0
    found = [np.unravel_index(int(one.scores.argmax()), (8, 8)) for one in smoothed(fields, 2.5)]
    assert [tuple(map(int, cell)) for cell in found] == [(3, 1 + n // 4) for n in range(20)]


def at(row: int, column: int) -> Located:
    (field,) = fields_of(1, 6, 6, 0, holes=False)
    return Located(field, [Peak(row, column, 1.0, VIEW)], 0.1)


TRACK = [at(1, 1), at(1, 2), at(1, 3), at(1, 4)]


@pytest.mark.parametrize(
    ("alone", "expected"),
    [
        # two agree, which false fixes hardly ever do; one is elsewhere, one has no margin but the same place
        (
            [(at(1, 1), True), (at(5, 5), False), (at(1, 3), True), (at(1, 4), False)],
            [True, False, True, True],
        ),
        # most of the fixes are elsewhere
        ([(at(1, 1), True), (at(5, 5), True), (at(5, 0), True), (at(1, 4), True)], [False] * 4),
        # one fix, which may be a false one
        ([(at(1, 1), True), (at(1, 2), False), (at(1, 3), False), (at(1, 4), False)], [False] * 4),
        ([(at(1, 1), False)] * 4, [False] * 4),
        ([(at(1, 1), None)] * 4, [None] * 4),
    ],
)
def test_what_is_a_fix_on_a_track(
    alone: list[tuple[Located, bool | None]], expected: list[bool | None]
) -> None:
    assert on_track(alone, TRACK) == expected


def test_a_long_flight_needs_more_than_a_few_false_fixes() -> None:
    """Of 50 pictures, 4 false fixes are not surprising at a rate of 4 %; 6 on one track are."""
    for fixes, believed in ((2, False), (4, False), (6, True)):
        alone = [(at(1, 1), number < fixes) for number in range(50)]
        assert on_track(alone, [at(1, 1)] * 50) == [believed] * 50


def test_the_chance_of_several_false_fixes_is_that_of_the_binomial_distribution() -> None:
    for least, count, share in ((0, 4, 0.04), (2, 9, 0.04), (5, 60, 0.1), (7, 7, 0.3)):
        assert chance_of(least, count, share) == pytest.approx(
            float(stats.binom.sf(least - 1, count, share)), rel=1e-9
        )
