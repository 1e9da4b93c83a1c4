"""Sizes of crops by stage, worked out by hand, and what is refused."""

import pytest

from unmask.contracts import Size
from unmask.data.sizes import RisingSize, SteadySize
from unmask.errors import SettingsError

BY_HAND = [
    ((128, 128), (224, 224), 16, 4, [(128, 128), (160, 160), (192, 192), (224, 224)]),
    ((16, 16), (32, 32), 4, 3, [(16, 16), (24, 24), (32, 32)]),
    ((32, 64), (64, 160), 16, 3, [(32, 64), (48, 112), (64, 160)]),
    ((64, 64), (64, 128), 16, 2, [(64, 64), (64, 128)]),
    ((128, 128), (256, 256), 32, 4, [(128, 128), (160, 160), (224, 224), (256, 256)]),  # 4/3, 8/3
]


@pytest.mark.parametrize(("first", "last", "unit", "stages", "expected"), BY_HAND)
def test_stages_are_the_nearest_multiples_to_equal_steps(
    first: tuple[int, int],
    last: tuple[int, int],
    unit: int,
    stages: int,
    expected: list[tuple[int, int]],
) -> None:
    rising = RisingSize(first=Size(*first), stages=stages)
    assert rising.stages_to(Size(*last), unit) == tuple(expected)


def test_a_steady_size_is_one_stage() -> None:
    assert SteadySize().stages_to(Size(224, 192), 16) == ((224, 192),)


@pytest.mark.parametrize(
    ("first", "stages", "message"),
    [
        ((100, 100), 4, r"multiple of 16 pixels.*got 100; .*--sizes.first 96"),
        ((128, 100), 4, r"got 128x100; .*--sizes.first 128x96"),
        ((0, 0), 4, r"positive multiple of 16 pixels.*got 0; .*--sizes.first 16"),
        ((256, 256), 4, r"smaller than the image size, got 256 and 224;.*sizes:steady"),
        ((224, 224), 4, r"smaller than the image size, got 224 and 224"),
        ((128, 240), 4, r"smaller than the image size, got 128x240 and 224"),
        ((128, 128), 1, r"stages must be at least 2, got 1; 4 is usual"),
        ((128, 128), 8, r"stages must be from 2 to 7.*got 8"),
    ],
)
def test_what_makes_no_sense_is_refused(first: tuple[int, int], stages: int, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RisingSize(first=Size(*first), stages=stages).stages_to(Size(224, 224), 16)
