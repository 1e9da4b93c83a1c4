"""Maskings: exact counts, closed forms, and statistics of what they draw."""

import math
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import mae as literal
from reference.block import blocks as literal_blocks
from reference.problems import random
from scipy import ndimage

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking import (
    AnyMasking,
    BlockMasking,
    GridMasking,
    InverseBlockMasking,
    NoiseMasking,
    PartitionMasking,
    RandomMasking,
    SquareMasking,
)
from unmask.masking.random import count_kept, mask_from_noise
from unmask.masking.squares import check_squares
from unmask.masks import PatchMask
from unmask.spec import kinds

MASKINGS = kinds(AnyMasking)


def assert_whole(mask: PatchMask, patches: int, kept: int) -> None:
    """Flags and indices agree, and every patch is either kept or removed."""
    assert mask.kept_index.shape == (len(mask.removed), kept)
    for row, flags in enumerate(mask.removed.tolist()):
        kept_here, removed_here = mask.kept_index[row].tolist(), mask.removed_index[row].tolist()
        assert sorted(kept_here + removed_here) == list(range(patches))
        assert [number for number, flag in enumerate(flags) if flag] == sorted(removed_here)
    images, masks = mask.image.unique(return_counts=True)
    assert mask.image.tolist() == sorted(mask.image.tolist())
    assert images.tolist() == list(range(len(images)))
    assert masks.unique().numel() == 1  # as many of each image


@pytest.mark.parametrize("name", MASKINGS)
@pytest.mark.parametrize("grid", [Size(14, 14), Size(4, 4), Size(6, 10)], ids=str)
def test_every_masking_is_whole_and_equal_in_count(name: str, grid: Size) -> None:
    mask = MASKINGS[name]().sample(5, grid, random(0))
    patches = grid.height * grid.width
    assert_whole(mask, patches, patches - int(mask.removed[0].sum()))


@pytest.mark.parametrize("name", MASKINGS)
def test_draws_depend_on_the_generator_alone(name: str) -> None:
    masking = MASKINGS[name]()
    first = masking.sample(4, Size(8, 8), random(1)).removed
    torch.rand(3)
    assert torch.equal(first, masking.sample(4, Size(8, 8), random(1)).removed)
    if name != "grid":
        assert not torch.equal(first, masking.sample(4, Size(8, 8), random(2)).removed)


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"),
    [
        (196, 0.75, 49),
        (256, 0.75, 64),
        (196, 0.8, 39),
        (196, 0.9, 19),
        (196, 0.5, 98),
        (16, 0.6, 6),
    ],
)
def test_counts_are_rounded_down_as_published(patches: int, ratio: float, kept: int) -> None:
    assert count_kept(patches, ratio) == kept
    side = math.isqrt(patches)
    for masking in (RandomMasking(ratio=ratio), BlockMasking(ratio=ratio)):
        mask = masking.sample(3, Size(side, side), random(0))
        assert_whole(mask, patches, kept)


@given(patches=st.integers(2, 300), ratio=st.floats(0.001, 0.999))
def test_count_is_the_float_product_truncated(patches: int, ratio: float) -> None:
    kept = int(patches * (1 - ratio))
    if 0 < kept < patches:
        assert count_kept(patches, ratio) == kept
    else:
        with pytest.raises(SettingsError, match=f"of the {patches} patches, so there is nothing"):
            count_kept(patches, ratio)


@pytest.mark.parametrize("masking", [RandomMasking, BlockMasking])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5, -0.2, math.nan])
def test_ratio_outside_its_range_is_refused(masking: Any, ratio: float) -> None:
    bounds = "be a finite number" if math.isnan(ratio) else "lie between 0 and 1"
    with pytest.raises(SettingsError, match=f"ratio must {bounds}, got {ratio:g}; MAE uses 0.75"):
        masking(ratio=ratio)


@pytest.mark.parametrize("masking", [RandomMasking, BlockMasking])
def test_ratio_that_keeps_or_hides_nothing_is_refused(masking: Any) -> None:
    with pytest.raises(
        SettingsError, match=r"keep none of the 16 patches.*between 0.0625 and 0.938"
    ):
        masking(ratio=0.99).sample(2, Size(4, 4), random(0))
    with pytest.raises(SettingsError, match=r"one patch cannot be masked.*use a larger image"):
        masking(ratio=0.9).sample(2, Size(1, 1), random(0))


@pytest.mark.parametrize("name", [name for name in MASKINGS if name != "squares"])
def test_one_patch_cannot_be_masked(name: str) -> None:
    with pytest.raises(SettingsError, match=r"one patch cannot be masked.*use a larger image"):
        MASKINGS[name]().sample(2, Size(1, 1), random(0))


# Random


def test_random_equals_the_literal_shuffle() -> None:
    noise = torch.rand(3, 30, generator=random(0))
    mask = mask_from_noise(noise, 0.7)
    for row, values in enumerate(noise.tolist()):
        kept, removed, _ = literal.shuffle(values, 0.7)
        assert mask.kept_index[row].tolist() == kept
        assert mask.removed_index[row].tolist() == removed


def test_random_hides_every_patch_equally_often_and_independently() -> None:
    mask = RandomMasking(ratio=0.75).sample(4000, Size(4, 4), random(0))
    shares = mask.removed.double().mean(0)
    assert (shares - 0.75).abs().max() < 5 * math.sqrt(0.75 * 0.25 / 4000)
    pairs = mask.removed.double().T @ mask.removed.double() / 4000
    together = pairs[~torch.eye(16, dtype=torch.bool)]  # 12 of 16 without replacement
    assert (together - (12 * 11) / (16 * 15)).abs().max() < 5 * math.sqrt(0.25 / 4000)


# Block


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(3, 16),
    width=st.integers(3, 16),
    ratio=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
@pytest.mark.timeout(60)
def test_block_hides_the_exact_count_on_any_grid(
    height: int, width: int, ratio: float, seed: int
) -> None:
    patches = height * width
    kept = int(patches * (1 - ratio))
    if not 0 < kept < patches:
        return
    mask = BlockMasking(ratio=ratio).sample(3, Size(height, width), random(seed))
    assert_whole(mask, patches, kept)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 0.95])
def test_block_hides_the_exact_count_at_the_paper_s_size(ratio: float) -> None:
    mask = BlockMasking(ratio=ratio).sample(50, Size(14, 14), random(3))
    assert (mask.removed.sum(1) == 196 - int(196 * (1 - ratio))).all()


@pytest.mark.parametrize("grid", [Size(2, 2), Size(2, 8), Size(9, 2)], ids=str)
@pytest.mark.timeout(10)
def test_block_on_small_grids(grid: Size) -> None:
    patches = grid.height * grid.width
    mask = BlockMasking(ratio=0.5).sample(4, grid, random(0))
    assert_whole(mask, patches, patches // 2)


@pytest.mark.parametrize("grid", [Size(1, 16), Size(16, 1), Size(2, 30)], ids=str)
@pytest.mark.timeout(1)
def test_block_ends_on_thin_grids(grid: Size) -> None:
    patches = grid.height * grid.width
    mask = BlockMasking(ratio=0.75).sample(4, grid, random(0))
    assert_whole(mask, patches, patches // 4)


@pytest.mark.parametrize("smallest", [0.01, 0.5, 0.99])
@pytest.mark.timeout(5)
def test_block_ends_for_any_smallest_block(smallest: float) -> None:
    masking = BlockMasking(ratio=0.5, smallest_block=smallest)
    assert_whole(masking.sample(4, Size(8, 8), random(0)), 64, 32)


@pytest.mark.parametrize("grid", [Size(14, 14), Size(10, 20)], ids=str)
@pytest.mark.parametrize("ratio", [0.4, 0.5, 0.75])
def test_blocks_hang_together(grid: Size, ratio: float) -> None:
    """Far more hidden patches have hidden neighbours than when patches are hidden one by one."""
    block = BlockMasking(ratio=ratio).sample(100, grid, random(0))
    spread = RandomMasking(ratio=ratio).sample(100, grid, random(0))
    in_blocks, by_chance = hidden_pairs(block.removed, grid), hidden_pairs(spread.removed, grid)
    share = ratio**2
    assert by_chance == pytest.approx(share, abs=0.02)
    assert in_blocks > by_chance + 0.4 * (ratio - by_chance)  # all in one block: nearly `ratio`


def hidden_pairs(removed: torch.Tensor, grid: Size) -> float:
    """Share of neighbouring pairs of patches of which both are hidden."""
    rows = removed.unflatten(1, tuple(grid))
    across = (rows[:, :, 1:] & rows[:, :, :-1]).flatten()
    down = (rows[:, 1:] & rows[:, :-1]).flatten()
    return torch.cat([across, down]).double().mean().item()


@pytest.mark.parametrize("ratio", [0.4, 0.5])
def test_blocks_lie_where_the_published_ones_do(ratio: float) -> None:
    """At ratios where the published sampler seldom fails, each patch is hidden about as often."""
    draws, count = 500, 196 - int(196 * (1 - ratio))
    ours = BlockMasking(ratio=ratio).sample(draws, Size(14, 14), random(0)).removed
    shares = ours.double().mean(0).unflatten(0, (14, 14))
    draw = Random(0)
    theirs = torch.tensor([literal_blocks(14, 14, count, 16, draw) for _ in range(draws)])
    off = shares - theirs.double().mean(0)
    assert off.abs().max() < 0.14  # 4.5 deviations of the difference of two shares of 500
    assert abs(off.mean().item()) < 0.02  # theirs falls short by a patch or two
    pairs = hidden_pairs(ours, Size(14, 14)), hidden_pairs(theirs.flatten(1), Size(14, 14))
    assert pairs[0] == pytest.approx(pairs[1], abs=0.03)


@pytest.mark.parametrize("smallest", [0.0, 1.0, -1.0])
def test_smallest_block_outside_its_range_is_refused(smallest: float) -> None:
    with pytest.raises(
        SettingsError, match=r"smallest_block must lie between 0 and 1.*BEiT uses 16/196"
    ):
        BlockMasking(smallest_block=smallest)


# Grid


@pytest.mark.parametrize(
    ("grid", "kept"), [(Size(14, 14), 49), (Size(16, 16), 64)], ids=["196", "256"]
)
def test_grid_keeps_one_of_every_square(grid: Size, kept: int) -> None:
    mask = GridMasking().sample(2, grid, random(0))
    assert_whole(mask, grid.height * grid.width, kept)
    for row in mask.removed:
        visible = ~row.unflatten(0, tuple(grid))
        for y in range(grid.height):
            for x in range(grid.width):
                assert bool(visible[y, x]) == (y % 2 == 0 and x % 2 == 0)


def test_grid_of_wider_squares_and_odd_sides() -> None:
    mask = GridMasking(stride=3).sample(1, Size(7, 4), random(0))
    assert sorted(mask.kept_index[0].tolist()) == [0, 3, 12, 15, 24, 27]


def test_grid_stride_of_one_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"stride must be at least 2, got 1; MAE uses 2 \(75 %\)"
    ):
        GridMasking(stride=1)


# Squares


def test_squares_are_the_mask_of_a_coarser_grid_enlarged() -> None:
    mask = SquareMasking(masking=RandomMasking(ratio=0.75), side=2).sample(
        3, Size(8, 12), random(0)
    )
    coarse = RandomMasking(ratio=0.75).sample(3, Size(4, 6), random(0))
    for row in range(3):
        for patch in range(96):
            y, x = divmod(patch, 12)
            assert mask.removed[row, patch] == coarse.removed[row, y // 2 * 6 + x // 2]
    assert_whole(mask, 96, 24)


def test_squares_of_several_masks() -> None:
    mask = SquareMasking(masking=PartitionMasking(), side=2).sample(2, Size(8, 8), random(0))
    assert mask.image.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (~mask.removed[:4]).sum(0).tolist() == [1] * 64


def test_squares_that_do_not_fill_the_grid_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"do not fill a grid of 15 x 14 patches; the nearest grid.* 16 x 14"
    ):
        SquareMasking().sample(1, Size(15, 14), random(0))
    with pytest.raises(SettingsError, match=r"256 x 224 \(--image-size 256x224\)"):
        check_squares(Size(15, 14), 2, 16)
    with pytest.raises(SettingsError, match="side must be at least 2, got 1; Pixio uses 2 or 4"):
        SquareMasking(side=1)


# Inverse block


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 16),
    width=st.integers(1, 16),
    ratio=st.floats(0.05, 0.95),
    side=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_inverse_block_shows_the_exact_count_on_any_grid(
    height: int, width: int, ratio: float, side: int, seed: int
) -> None:
    patches = height * width
    kept = int(patches * (1 - ratio))
    if 0 < kept < patches:
        masking = InverseBlockMasking(ratio=ratio, side=side)
        assert_whole(masking.sample(3, Size(height, width), random(seed)), patches, kept)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_inverse_block_shows_squares_around_the_drawn_centres(side: int) -> None:
    """The literal version: each patch of each square, row by row; what lies outside is lost."""
    grid, masking = Size(9, 7), InverseBlockMasking(ratio=0.7, side=side)
    count = int(63 * (1 - 0.7 + 0.07) / side**2)
    centers = torch.randint(63, (20, count), generator=random(4)).tolist()
    shown = masking._squares(20, grid, random(4))
    mask = masking.sample(20, grid, random(4))
    first = (side - 1) // 2 if side % 2 else side // 2
    for row in range(20):
        expected: set[int] = set()
        for center in centers[row]:
            for y in range(center // 7 - first, center // 7 - first + side):
                for x in range(center % 7 - first, center % 7 - first + side):
                    if 0 <= y < 9 and 0 <= x < 7:
                        expected.add(7 * y + x)
        assert shown[row].nonzero().flatten().tolist() == sorted(expected)
        kept = set(mask.kept_index[row].tolist())
        assert kept <= expected or expected <= kept  # trimmed, or filled


def test_inverse_block_at_the_authors_size() -> None:
    """39 of 196 are visible, mostly beside other visible ones."""
    mask = InverseBlockMasking().sample(200, Size(14, 14), random(0))
    assert_whole(mask, 196, 39)
    assert hidden_pairs(~mask.removed, Size(14, 14)) > 0.1  # by chance 0.04


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"adjust": 1.0}, "adjust must be at least 0 and below 1, got 1; data2vec uses 0.07"),
        ({"side": 0}, "side must be at least 1, got 0; data2vec uses 3"),
        ({"ratio": 1.0}, "ratio must lie between 0 and 1, got 1"),
    ],
)
def test_inverse_blocks_that_make_no_sense(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        InverseBlockMasking(**wrong)


# Filtered noise


@given(
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    ratio=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_noise_hides_the_exact_count_on_any_grid(
    height: int, width: int, ratio: float, seed: int
) -> None:
    patches = height * width
    kept = int(patches * (1 - ratio))
    if 0 < kept < patches:
        mask = NoiseMasking(ratio=ratio).sample(3, Size(height, width), random(seed))
        assert_whole(mask, patches, kept)


def test_noise_hides_where_the_difference_of_two_blurs_is_largest() -> None:
    """The literal version: SciPy's Gaussians on the same white noise, cut at three deviations of the wider one."""
    grid, masking = Size(6, 9), NoiseMasking(ratio=0.7, fine=0.7, coarse=1.5)
    reach = 5  # ceil(3 x 1.5)
    white = torch.randn((4, 1, 6 + 2 * reach, 9 + 2 * reach), generator=random(3))[:, 0].numpy()
    mask = masking.sample(4, grid, random(3))
    for row, noise in enumerate(white):
        fine, coarse = (
            ndimage.gaussian_filter(noise, sigma, radius=reach, mode="constant")
            for sigma in (0.7, 1.5)
        )
        spots = (fine - coarse)[reach:-reach, reach:-reach].flatten()
        hidden = set(spots.argsort()[int(54 * 0.3) :].tolist())
        assert set(mask.removed_index[row].tolist()) == hidden


def test_noise_hides_spots_that_are_larger_than_patches_and_smaller_than_blocks() -> None:
    grid = Size(14, 14)
    pairs = {
        name: hidden_pairs(masking.sample(300, grid, random(0)).removed, grid)
        for name, masking in {
            "random": RandomMasking(ratio=0.5),
            "noise": NoiseMasking(ratio=0.5),
            "coarser": NoiseMasking(ratio=0.5, fine=2.0, coarse=4.0),
        }.items()
    }
    assert pairs["random"] + 0.03 < pairs["noise"] < pairs["coarser"] - 0.03


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ratio": 0.0}, "ratio must lie between 0 and 1, got 0; ColorMAE uses 0.75"),
        ({"coarse": 40.0}, "coarse must be above 0 and at most 16, got 40"),
        ({"fine": 2.0}, "fine must be below coarse, got 2 and 2"),
    ],
)
def test_noise_that_makes_no_sense(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        NoiseMasking(**wrong)


# Partition


def test_partition_keeps_disjoint_parts_and_shows_everything_once() -> None:
    mask = PartitionMasking(masks=4, ratio=0.75).sample(5, Size(14, 14), random(0))
    assert mask.image.tolist() == [image for image in range(5) for _ in range(4)]
    assert_whole(mask, 196, 49)
    for image in range(5):
        rows = mask.kept_index[4 * image : 4 * image + 4].flatten().tolist()
        assert sorted(rows) == list(range(196))


def test_first_mask_of_a_partition_is_random_masking() -> None:
    mask = PartitionMasking(masks=3, ratio=0.75).sample(4, Size(6, 6), random(1))
    plain = RandomMasking(ratio=0.75).sample(4, Size(6, 6), random(1))
    assert mask.removed[::3].equal(plain.removed)


def test_partitions_that_cannot_be_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"a ratio of at least 0\.75, or at most 2 masks"):
        PartitionMasking(masks=4, ratio=0.6)
    with pytest.raises(SettingsError, match=r"at least 0\.6667, or at most 1 masks"):
        PartitionMasking(masks=3, ratio=0.2)
    with pytest.raises(SettingsError, match="masks must be at least 2, got 1"):
        PartitionMasking(masks=1)
