"""Fields of scores, peaks and figures against literal loops."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.geo.distance import metres_between, metres_per_degree
from unmask.places.controls import raw_vectors
from unmask.places.field import Field, best_of, fields_of, margin_of, peaks_of
from unmask.places.grid import Grid, grids_of
from unmask.places.locating import Beliefs
from unmask.places.looks import View, covered, pieces_of
from unmask.places.scores import Answer, Guess, chance, score
from unmask.traits import Places

RANDOM = np.random.default_rng(3)


def places(rows: int, columns: int, metres: float = 20.0, turn: float = 0.0) -> Places:
    """A grid of tiles, 10 m apart, turned clockwise by some degrees."""
    a = math.radians(turn)
    row, column = (index.ravel() for index in np.indices((rows, columns)))
    right, up = 10.0 * column, -10.0 * row
    east = right * math.cos(a) + up * math.sin(a)
    north = up * math.cos(a) - right * math.sin(a)
    degrees = np.stack([120 + east / 101_500, 24.2 + north / 110_770], 1)
    return Places(degrees, np.full(len(row), metres), np.stack([row, column], 1))


def grid(rows: int, columns: int, turn: float = 0.0) -> Grid:
    return grids_of(places(rows, columns, turn=turn))[0]


@pytest.mark.parametrize("turn", [0.0, 37.0, 200.0])
def test_a_grid_knows_its_steps_direction_and_places(turn: float) -> None:
    made = places(6, 9, turn=turn)
    found = grids_of(made)[0]
    assert found.steps == pytest.approx((10, 10), rel=2e-3)
    assert (found.bearing - turn + 180) % 360 == pytest.approx(180, abs=0.2)
    for number in (0, 7, 40):
        row, column = made.cells[number].tolist()
        away = metres_between(np.array(found.degrees(row, column)), made.degrees[number])
        assert float(away) < 0.01


@pytest.mark.parametrize("middle", [(120.0, 55.0), (180.0, -17.0)])
def test_places_of_a_large_map_are_those_of_its_tiles(middle: tuple[float, float]) -> None:
    """20 km in even steps of degrees, whose metres change with the latitude; also across 180 degrees."""
    row, column = (index.ravel() for index in np.indices((41, 41)))
    longitude = middle[0] + (column - 20) * 500 / metres_per_degree(np.array(middle[1]))[0]
    longitude = (longitude + 180) % 360 - 180
    latitude = middle[1] - (row - 20) * 500 / 111_000
    degrees = np.stack([longitude, latitude], 1)
    made = Places(degrees, np.full(len(row), 600.0), np.stack([row, column], 1))
    found = grids_of(made)[0]
    assert found.steps == pytest.approx((500, 500), rel=0.01)
    for number in (0, 40, 900, len(row) - 1):
        place = found.degrees(*made.cells[number].tolist())
        assert float(metres_between(np.array(place), degrees[number])) < 0.01
    between = np.array(found.degrees(0.5, 0.0))
    apart = [float(metres_between(between, degrees[number])) for number in (0, 41)]
    assert apart[0] == pytest.approx(apart[1], rel=0.01)


def test_a_grid_of_one_row_and_one_with_holes() -> None:
    one = grids_of(places(1, 5))[0]
    assert one.steps == pytest.approx((10, 10), rel=2e-3)
    assert one.bearing == pytest.approx(0, abs=0.5) or one.bearing == pytest.approx(360, abs=0.5)
    made = places(4, 4)
    kept = np.arange(16) != 5
    holed = grids_of(Places(made.degrees[kept], made.metres[kept], made.cells[kept]))[0]
    assert holed.rows[1, 1] == -1
    assert sorted(holed.rows[holed.rows >= 0].tolist()) == list(range(15))


@pytest.mark.parametrize("turn", [0.0, 37.0])
@pytest.mark.parametrize("lead", [(1, 1), (2, 1), (1, 0), (0, 1)])
def test_a_grid_of_tiles_in_one_line(turn: float, lead: tuple[int, int]) -> None:
    """Where holes leave a diagonal, a row or a column: steps are as those of the whole grid."""
    made, full = places(9, 9, turn=turn), grid(9, 9, turn)
    chosen = [9 * row + column for row, column in (np.array(lead) * n for n in range(4))]
    (found,) = grids_of(Places(*(part[chosen] for part in made)))
    assert found.leads == pytest.approx(full.leads, abs=0.05)
    assert (found.bearing - full.bearing + 180) % 360 == pytest.approx(180, abs=0.3)
    for number in chosen:
        row, column = made.cells[number].tolist()
        away = metres_between(np.array(found.degrees(row, column)), made.degrees[number])
        assert float(away) < 0.05


def test_the_field_is_the_mean_of_shifted_scores() -> None:
    here = grid(5, 7)
    here.rows[2, 3] = -1  # a hole
    matrix = F.normalize(torch.randn(35, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    vectors = F.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    shifts = [(0, 0), (1, -2), (-4, 0)]
    expected = np.full((5, 7), -np.inf)
    for row in range(5):
        for column in range(7):
            if here.rows[row, column] < 0:
                continue
            total = 0.0
            for vector, (down, across) in zip(vectors, shifts, strict=True):
                r, c = row + down, column + across
                if 0 <= r < 5 and 0 <= c < 7 and here.rows[r, c] >= 0:
                    total += float(matrix[here.rows[r, c]] @ vector)
            expected[row, column] = total / 3
    assert np.allclose(fields_of([vectors], [shifts], matrix, here)[0], expected, atol=1e-6)


def test_peaks_are_apart_and_the_margin_is_between_the_first_two() -> None:
    scores = RANDOM.uniform(0, 0.5, (12, 12)).astype(np.float32)
    scores[3, 4], scores[3, 5], scores[9, 9] = 1.0, 0.95, 0.8
    scores[0, 0] = -np.inf
    field = Field(grid(12, 12), scores, [View(100, 0)], np.zeros((12, 12), np.int16))
    first, second, third = peaks_of(field, 3)
    assert (round(first.row), round(first.column), first.score) == (3, 4, 1.0)
    assert first.column > 4  # towards the higher neighbour
    assert (round(second.row), round(second.column)) == (9, 9)
    assert margin_of([first, second]) == pytest.approx(0.2, abs=1e-6)
    for one, other in ((first, second), (first, third), (second, third)):
        assert math.hypot(round(one.row) - round(other.row), round(one.column) - round(other.column)) * 10 >= 19.9  # fmt: skip
    allowed = np.zeros((12, 12), bool)
    allowed[9, 9] = True
    assert [peak.score for peak in peaks_of(field, 3, allowed)] == [np.float32(0.8)]
    assert margin_of(peaks_of(field, 3, allowed)) == 0


def test_each_place_has_the_view_that_fits_best_there() -> None:
    """Not that of the highest cell of the map, which a prior may exclude."""
    views = [View(50, 90), View(100, 0), View(70, 10)]
    scores = [RANDOM.normal(0, 1, (6, 7)).astype(np.float32) for _ in views]
    for one in scores:
        one[2, 3] = -np.inf  # a hole
    field = best_of(grid(6, 7), views, scores)
    for row in range(6):
        for column in range(7):
            here = [float(one[row, column]) for one in scores]
            assert field.scores[row, column] == max(here)
            if (row, column) != (2, 3):
                allowed = np.zeros((6, 7), bool)
                allowed[row, column] = True
                (peak,) = peaks_of(field, 2, allowed)
                assert peak.view == views[int(np.argmax(here))]


def ground(east: torch.Tensor, north: torch.Tensor) -> torch.Tensor:
    """Colours of places in metres, [3 ...], from 0 to 255."""
    waves = [torch.sin(east / 7 + 1), torch.cos(north / 5), torch.sin((east + 2 * north) / 11)]
    return torch.stack(waves) * 100 + 128


def photograph(heading: float, width: float, size: Size) -> torch.Tensor:
    """What a camera above the origin shows, whose upper edge points to a heading."""
    a = math.radians(heading)
    right = ((torch.arange(size.width) + 0.5) / size.width - 0.5) * width
    below = ((torch.arange(size.height) + 0.5) / size.height - 0.5) * width * size.height / size.width  # fmt: skip
    v, u = torch.meshgrid(below, right, indexing="ij")
    east = u * math.cos(a) - v * math.sin(a)
    north = -u * math.sin(a) - v * math.cos(a)
    return ground(east, north).round().to(torch.uint8)


@pytest.mark.parametrize(("heading", "turn"), [(0.0, 0.0), (90.0, 0.0), (152.0, 0.0), (30.0, 37.0)])
def test_pieces_of_a_photograph_are_upright_in_the_map(heading: float, turn: float) -> None:
    here, size = grid(9, 9, turn=turn), Size(150, 240)
    (pieces,) = pieces_of(photograph(heading, 60, size), [View(60, heading)], here, 16)
    assert pieces.shifts[0] == (0, 0)
    assert len(pieces.shifts) > 1
    a = math.radians(here.bearing)
    along = ((torch.arange(16) + 0.5) / 16 - 0.5) * 20
    for (down, across), image in zip(pieces.shifts, pieces.images, strict=True):
        y, x = torch.meshgrid(along + 10 * down, along + 10 * across, indexing="ij")
        east = x * math.cos(a) - y * math.sin(a)
        north = -x * math.sin(a) - y * math.cos(a)
        assert (image.float() - ground(east, north)).abs().mean() < 6


def test_how_much_of_a_piece_a_picture_shows() -> None:
    here = grid(9, 9)
    assert covered(Size(100, 100), View(20, 0), here) == 1
    assert covered(Size(100, 200), View(20, 0), here) == pytest.approx(0.5, abs=0.03)
    assert covered(Size(100, 100), View(20, 45), here) == pytest.approx(0.828, abs=0.02)


def test_views_that_are_tried() -> None:
    known = Beliefs(100.0, 350.0, 4)
    assert known.views(Size(10, 20), 30) == [View(100.0, h) for h in (350, 80, 170, 260)]
    assert [known.believed(number) for number in range(4)] == [True, False, False, False]
    unknown = Beliefs(None, None, 4)
    views = unknown.views(Size(10, 20), 30)
    assert sorted({view.width for view in views}) == pytest.approx([60, 84.6, 120])
    assert all(unknown.believed(number) for number in range(len(views)))


def test_scores_against_literal_loops() -> None:
    answers = [
        Answer(RANDOM.uniform(0, 120, 10).tolist(), 30.0, bool(RANDOM.random() < 0.6))
        for _ in range(41)
    ]
    found = score("a", answers)
    assert found.queries == 41
    for name, radius in (("25 m", 25), ("50 m", 50), ("100 m", 100), ("half a tile", 30)):
        hits = 0
        for answer in answers:
            if answer.away[0] <= radius:
                hits += 1
        assert found.within[name] == pytest.approx(hits / 41)
    for k in (1, 5, 10):
        hits = 0
        for answer in answers:
            hits += any(metres <= 30 for metres in answer.away[:k])
        assert found.recall[f"R@{k}"] == pytest.approx(hits / 41)
    fixes = [answer for answer in answers if answer.fix]
    false = [answer for answer in fixes if answer.away[0] > 30]
    assert found.coverage == pytest.approx(len(fixes) / 41)
    assert found.false_fixes == pytest.approx(len(false) / len(fixes))
    assert found.median == pytest.approx(sorted(answer.away[0] for answer in answers)[20])
    assert found.mean == pytest.approx(sum(answer.away[0] for answer in answers) / 41)
    assert score("a", [answers[0]._replace(fix=False)]).false_fixes is None


def test_chance_against_literal_loops_and_draws() -> None:
    tiles = places(8, 8).degrees
    truths = [tiles[9], tiles[30] + 1e-5]
    found = chance([Guess(truth, tiles, 15.0) for truth in truths])
    within = [
        sum(float(metres_between(tile, truth)) <= 25 for tile in tiles) / len(tiles)
        for truth in truths
    ]
    assert found.within["25 m"] == pytest.approx(sum(within) / 2)
    near = [np.asarray(metres_between(tiles, truth)) <= 15 for truth in truths]
    draws = RANDOM.integers(0, len(tiles), (20_000, 5))
    hit = np.mean([one[draws].any(1).mean() for one in near])
    assert found.recall["R@5"] == pytest.approx(hit, abs=0.01)
    assert found.coverage is None


def test_raw_vectors_are_correlations() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)  # fmt: skip
    first, second = raw_vectors(images)
    small = images.float().mean(1).reshape(2, 8, 2, 8, 2).mean((2, 4)).flatten(1).numpy()
    assert float(first @ second) == pytest.approx(np.corrcoef(small)[0, 1], abs=1e-5)
