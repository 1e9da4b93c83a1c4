"""Near-duplicates: the threshold from the data, against literal loops and known dimensions."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unmask.vectors.duplicates import (
    Pair,
    fixed,
    from_data,
    groups,
    intrinsic_dimension,
    near,
    near_duplicates,
    near_of_splits,
    pairs,
)


def sphere(count: int, dimension: int, seed: int = 0) -> Tensor:
    """Points spread evenly over a sphere of this dimension."""
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimension + 1, generator=random), dim=1)


def test_neighbours_are_those_of_a_loop() -> None:
    points = sphere(60, 5)
    found = near(points, 4)
    for row in range(60):
        distances = {
            other: float((points[row].double() - points[other].double()).norm())
            for other in range(60)
            if other != row
        }
        order = sorted(distances, key=distances.__getitem__)[:4]
        assert found.rows[row].tolist() == order
        expected = [distances[other] for other in order]
        assert found.distances[row].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dimension", [2, 5, 10])
def test_the_dimension_is_found(dimension: int) -> None:
    estimate = intrinsic_dimension(near(sphere(2000, dimension), 10).distances)
    assert estimate == pytest.approx(dimension, rel=0.25)


@pytest.mark.parametrize("dimension", [2, 8])
def test_chance_gives_hardly_any_pairs_and_planted_ones_are_found(dimension: int) -> None:
    false = 0
    for seed in range(10):
        points = sphere(400, dimension, seed)
        hashes = list(map(str, range(400)))
        false += len(pairs(*threshold_of(points), hashes))
        random = torch.Generator().manual_seed(seed)
        copies = points[:20] + 2e-5 * torch.randn(20, dimension + 1, generator=random)
        both = F.normalize(torch.cat([points, copies]), dim=1)
        found = pairs(*threshold_of(both), list(map(str, range(420))))
        planted = {(row, 400 + row) for row in range(20)}
        assert planted <= {(pair.first, pair.second) for pair in found}
    assert false <= 2  # 0.05 are expected in each of the ten


def threshold_of(points: Tensor):
    found = near(points, 10)
    return found, from_data(found)


def test_equal_files_are_pairs_at_any_distance() -> None:
    found = near(sphere(30, 3), 10)
    hashes = [*map(str, range(29)), "4"]
    same = [pair for pair in pairs(found, fixed(1.0, 30), hashes) if pair.same_file]
    assert [(pair.first, pair.second) for pair in same] == [(4, 29)]


def test_a_given_threshold_is_a_cosine() -> None:
    points = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 1.0], [0.0, 1.0]]), dim=1)
    found = pairs(near(points, 3), fixed(0.9, 4), list("abcd"))
    assert [(pair.first, pair.second) for pair in found] == [(0, 1)]
    assert found[0].score == pytest.approx(1 / 1.01**0.5)


def test_a_picture_without_direction_is_nobodys_duplicate() -> None:
    points = sphere(40, 3)
    points[3] = 0
    assert not [p for p in pairs(*threshold_of(points), list(map(str, range(40)))) if 3 in p[:2]]


def test_groups_join_what_is_linked() -> None:
    found = [Pair(*key, 0.99, False) for key in [(5, 9), (1, 2), (2, 7), (4, 9)]]
    assert groups(found) == [[1, 2, 7], [4, 5, 9]]


def test_a_copy_in_another_split_is_found_beside_many_closer_neighbours() -> None:
    random = torch.Generator().manual_seed(0)
    frames = F.normalize(
        torch.tensor([1.0, 0, 0, 0]) + 1e-3 * torch.randn(12, 4, generator=random), dim=1
    )
    copy = F.normalize(torch.tensor([[1.0, 0, 0, 0.01]]), dim=1)
    points = torch.cat([frames, copy, sphere(20, 3)])
    splits, hashes = ["test"] * 12 + ["train"] * 21, list(map(str, range(33)))
    limit = fixed(0.999, 33)
    alone = pairs(near(points, 4), limit, hashes, splits)
    assert all(12 not in (pair.first, pair.second) or pair.second == 12 for pair in alone)
    every, *of_each = near_of_splits(points, 4, splits)
    assert every.rows.equal(near(points, 4).rows)
    assert every.distances.equal(near(points, 4).distances)
    for name, found in zip(["test", "train"], of_each, strict=True):
        for row in range(33):
            others = [other for other in range(33) if splits[other] == name and other != row]
            distances = (points[others] - points[row]).norm(dim=1)
            expected = sorted(distances.tolist())[:4]
            assert found.distances[row].tolist() == pytest.approx(expected, abs=1e-6)
    both, _ = near_duplicates(points, hashes, splits, 0.999)
    expected = {(row, 12) for row in range(12) if float((points[row] - points[12]).norm()) < 0.0447}
    assert expected <= {(pair.first, pair.second) for pair in both}
    assert len({(pair.first, pair.second) for pair in both}) == len(both)


def test_a_third_split_hides_no_copy_in_training() -> None:
    random = torch.Generator().manual_seed(7)
    picture = sphere(1, 3)
    copy = F.normalize(picture + 1e-2 * torch.randn(1, 4, generator=random), dim=1)
    noise = 1e-3 * torch.randn(25, 4, generator=random)
    nearer = F.normalize((picture + copy) / 2 + noise, dim=1)  # to both
    points = torch.cat([picture, copy, nearer, sphere(300, 3, 1)])
    splits = ["test", "train", *["val"] * 25, *["train"] * 300]
    found, _ = near_duplicates(points, list(map(str, range(len(points)))), splits, 0.999)
    assert (0, 1) in {(pair.first, pair.second) for pair in found}


def test_equal_files_are_paired_with_the_first_of_each_split() -> None:
    points = sphere(6, 3)
    hashes, splits = ["a"] * 4 + ["b", "c"], ["test", "test", "train", "test", "train", "train"]
    found = pairs(near(points, 1), fixed(1.0, 6), hashes, splits)
    assert {(one.first, one.second) for one in found} == {(0, 1), (0, 2), (0, 3), (2, 3)}
