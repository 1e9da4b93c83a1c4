"""The order of samples: a permutation an epoch, without a table."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.order import permuted, rows_of, samples


def whole(count: int, seed: int, epoch: int) -> list[int]:
    return permuted(np.arange(count), count, seed, epoch).tolist()


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 1500), seed=st.integers(0, 2**40), epoch=st.integers(0, 2**20))
def test_every_index_once_an_epoch(count: int, seed: int, epoch: int) -> None:
    assert sorted(whole(count, seed, epoch)) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257])
def test_every_index_once_around_powers(count: int) -> None:
    assert sorted(whole(count, 0, 0)) == list(range(count))


@given(count=st.integers(2, 500), places=st.lists(st.integers(0, 499), min_size=1, max_size=20))
@settings(deadline=None, max_examples=30)
def test_each_place_on_its_own(count: int, places: list[int]) -> None:
    places = [place % count for place in places]
    order = whole(count, 3, 1)
    assert permuted(np.array(places), count, 3, 1).tolist() == [order[place] for place in places]


def test_billions_need_no_table() -> None:
    places = np.array([0, 1, 10**9, 5 * 10**9 - 1])
    found = permuted(places, 5 * 10**9, 0, 0)
    assert len(set(found.tolist())) == 4
    assert (found >= 0).all()
    assert (found < 5 * 10**9).all()


def test_the_places_given_are_left_alone() -> None:
    places = np.arange(10)
    permuted(places, 10, 0, 0)
    assert places.tolist() == list(range(10))


def test_other_epochs_and_seeds_give_other_orders() -> None:
    orders = {tuple(whole(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize("count", [5, 13, 16])
def test_every_index_comes_at_every_place_equally_often(count: int) -> None:
    epochs = 400
    table = np.zeros((count, count))
    for epoch in range(epochs):
        table[np.arange(count), whole(count, 0, epoch)] += 1
    expected = epochs / count
    chi_squared = ((table - expected) ** 2 / expected).sum()
    freedom = (count - 1) ** 2
    assert chi_squared < freedom + 5 * np.sqrt(2 * freedom)


def test_neighbours_do_not_stay_together() -> None:
    order = np.array(whole(10_000, 0, 0))
    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(correlation) < 0.05
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 60), batch_size=st.integers(1, 150), seed=st.integers(0, 99))
def test_every_image_once_an_epoch_for_any_batch_size(
    count: int, batch_size: int, seed: int
) -> None:
    epochs = 3
    steps = -(-epochs * count // batch_size)
    shown: list[tuple[int, int]] = []
    for step in range(steps):
        batch = samples(step, batch_size, count, seed)
        assert len(batch) == batch_size
        shown += batch
    assert [epoch for epoch, _ in shown] == [place // count for place in range(len(shown))]
    seen = Counter(shown[: epochs * count])
    assert set(seen) == {(epoch, index) for epoch in range(epochs) for index in range(count)}
    assert set(seen.values()) == {1}


def test_a_step_does_not_depend_on_those_before_it() -> None:
    forward = [samples(step, 7, 20, 1) for step in range(6)]
    assert [samples(step, 7, 20, 1) for step in reversed(range(6))] == forward[::-1]


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 8), (3, 12), (4, 8), (2, 6), (5, 5)])
def test_processes_share_a_batch(processes: int, batch_size: int) -> None:
    """Each row once; and where a share is even, a row's mirror image is in the same one, at the mirrored place."""
    shares = [rows_of(rank, processes, batch_size) for rank in range(processes)]
    assert sorted(row for share in shares for row in share or []) == list(range(batch_size))
    for share in shares:
        assert share is not None
        assert len(share) == batch_size // processes
        if len(share) % 2 == 0:
            assert share[::-1] == [batch_size - 1 - row for row in share]


def test_one_process_has_all_rows() -> None:
    assert rows_of(0, 1, 8) is None


def test_each_epoch_of_a_run_has_its_own_order() -> None:
    epochs = [[index for _, index in samples(step, 40, 40, 0)] for step in range(3)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
