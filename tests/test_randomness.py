"""Random numbers as functions of a key."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unmask.randomness import derive, generator, mix, seeded

WORDS = st.integers(0, 2**64 - 1)


def splitmix(number: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014) in whole numbers of any length."""
    number = (number + 0x9E3779B97F4A7C15) % 2**64
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) % 2**64
    return number ^ (number >> 31)


@given(numbers=st.lists(WORDS, min_size=1, max_size=20))
def test_mix_equals_the_published_function(numbers: list[int]) -> None:
    mixed = mix(np.array(numbers, dtype=np.uint64))
    assert mixed.tolist() == [splitmix(number) for number in numbers]


def test_mix_equals_a_published_output() -> None:
    assert int(mix(np.array([0], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF  # SplitMix64, seed 0


@given(key=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4))
def test_seed_fits_torch_and_is_repeatable(key: list[int]) -> None:
    seed = derive("masks", *key)
    assert 0 <= seed < 2**63
    assert seed == derive("masks", *key)


def test_seeds_of_near_keys_are_all_different() -> None:
    seeds = {
        derive(use, *key)
        for use in ("masks", "crop", "order", "step")
        for key in [(), *((a,) for a in range(20)), *((a, b) for a in range(20) for b in range(20))]
    }
    assert len(seeds) == 4 * (1 + 20 + 400)


def test_long_uses_are_kept_apart() -> None:
    assert derive("augmentation-a", 0) != derive("augmentation-b", 0)


def test_seeds_are_spread_evenly() -> None:
    seeds = np.array([derive("masks", 0, step) for step in range(4000)]) / 2**63
    counts = np.histogram(seeds, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400 * 0.9)


def test_generator_is_a_function_of_the_key() -> None:
    draws = [
        torch.rand(4, generator=generator("cpu", "masks", *key)) for key in ((0, 1), (0, 1), (1, 0))
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_seeded_restores_the_global_generator() -> None:
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    first = torch.rand(2)
    with seeded("crop", 1, 2):
        inside = torch.rand(3)
    rest = torch.rand(3)
    assert torch.equal(torch.cat([first, rest]), expected)
    torch.manual_seed(99)
    with seeded("crop", 1, 2):
        assert torch.equal(torch.rand(3), inside)
    with seeded("crop", 1, 3):
        assert not torch.equal(torch.rand(3), inside)


def test_seeded_restores_after_an_error() -> None:
    state = torch.default_generator.get_state()
    with pytest.raises(RuntimeError, match="negative"), seeded("crop"):
        torch.rand(torch.rand(1).int() - 1)
    assert torch.equal(torch.default_generator.get_state(), state)


def test_nothing_else_touches_the_global_generator() -> None:
    state = torch.default_generator.get_state()
    derive("masks", 1)
    torch.rand(1, generator=generator("cpu", "masks", 1))
    assert torch.equal(torch.default_generator.get_state(), state)


def test_seeded_sets_and_restores_the_generators_of_numpy_and_python() -> None:
    np.random.seed(4)
    random.seed(5)
    expected = (np.random.rand(4).tolist(), [random.random() for _ in range(4)])
    np.random.seed(4)
    random.seed(5)
    first = (np.random.rand(), random.random())
    with seeded("augment", 1):
        inside = (np.random.rand(), random.random())
    rest = (np.random.rand(3).tolist(), [random.random() for _ in range(3)])
    assert ([first[0], *rest[0]], [first[1], *rest[1]]) == expected
    with seeded("augment", 1):
        assert (np.random.rand(), random.random()) == inside
