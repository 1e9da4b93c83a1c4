"""Weights for other sizes and channels: against timm's resampling and the rule as written."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from formats.models import GREY, TINY, assert_same, close, pictures, weights_of
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.encoders.positions import TableResampling, resized
from unmask.formats.adapt import adapt, prediction_for, projection_for
from unmask.patches import patchify


def statistics(channels: int) -> ChannelStatistics:
    values = {name: (value,) * channels for name, value in (("mean", 0.5), ("std", 0.2))}
    return ChannelStatistics(**values, low=(0.0,) * channels, high=(1.0,) * channels, source="")


def test_nothing_to_adapt() -> None:
    weights = weights_of()
    found = adapt(weights, TINY.encoder, TINY.image_size, TINY.statistics)
    assert found.spec == TINY
    assert_same(found.whole, weights.whole)


@pytest.mark.parametrize("resampling", get_args(TableResampling))
@pytest.mark.parametrize("side", [8, 20, 32])
def test_squares_are_resampled_as_in_timm(side: int, resampling: TableResampling) -> None:
    """Whatever the weights say; the encoder of the recipe decides. timm's own default has antialiasing."""
    weights = weights_of()
    encoder = replace(TINY.encoder, position_resampling=resampling)
    found = adapt(weights, encoder, Size(side, side), TINY.statistics)
    grid, antialias = [side // 4, side // 4], resampling == "antialiased"
    ours, theirs = found.encoder["pos_embed"], weights.encoder["pos_embed"]
    assert ours.equal(resample_abs_pos_embed(theirs, grid, antialias=antialias))
    assert found.decoder["decoder.pos_embed"].equal(
        resample_abs_pos_embed(weights.decoder["decoder.pos_embed"], grid, antialias=antialias)
    )
    assert found.spec.encoder == encoder
    assert found.build_objective().encoder.grid == (side // 4, side // 4)


def ramps(grid: Size) -> Tensor:
    """A table whose columns rise with the row, with the column, and with both."""
    rows, columns = torch.meshgrid(
        (torch.arange(grid.height) + 0.5) / grid.height,
        (torch.arange(grid.width) + 0.5) / grid.width,
        indexing="ij",
    )
    return torch.stack([rows, columns, 2 * rows - columns], -1)


@pytest.mark.parametrize("old", [Size(8, 8), Size(7, 12), Size(14, 6)])
@pytest.mark.parametrize("new", [Size(14, 14), Size(9, 20), Size(21, 13)])
def test_a_ramp_stays_a_ramp(old: Size, new: Size) -> None:
    """Two old places from the rim on, where resampling has no neighbours to look at."""
    table = torch.cat([torch.full((1, 1, 3), 7.0), ramps(old).reshape(1, -1, 3)], 1)
    found = resized(table, old, new, "antialiased")
    assert found[0, 0].tolist() == [7, 7, 7]
    rim = [math.ceil(2 * max(1, n / o)) for n, o in zip(new, old, strict=True)]
    inner = tuple(slice(r, -r) for r in rim)
    expected = ramps(new)[inner]
    assert expected.numel() > 0
    tolerance = 1e-6 if new.height >= old.height and new.width >= old.width else 1e-3
    close(found[0, 1:].reshape(*new, 3)[inner], expected, tolerance)


class TestChannels:
    def test_to_one_channel_is_exact_for_grey_pictures(self) -> None:
        """Three equal channels, equally normalised, give the same tokens as one."""
        weights = weights_of(replace(TINY, statistics=statistics(3)))
        grey = adapt(weights, TINY.encoder, TINY.image_size, statistics(1))
        image = pictures(2, 1, 16, 16)
        ours = grey.build_encoder().encode(image)
        theirs = weights.build_encoder().encode(image.expand(-1, 3, -1, -1))
        close(ours.patches, theirs.patches)
        close(ours.cls, theirs.cls)

    @pytest.mark.parametrize("channels", [2, 4, 7])
    def test_others_repeat_and_scale(self, channels: int) -> None:
        weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        found = projection_for(weight, channels)
        for new in range(channels):
            close(found[:, new], weight[:, new % 3] * 3 / channels)

    def test_one_to_three_is_exact_for_grey_pictures(self) -> None:
        weights = weights_of(replace(TINY, channels=1, statistics=statistics(1)))
        colour = adapt(weights, TINY.encoder, TINY.image_size, statistics(3))
        image = pictures(2, 1, 16, 16)
        ours = colour.build_encoder().encode(image.expand(-1, 3, -1, -1))
        close(ours.patches, weights.build_encoder().encode(image).patches)

    def test_predictions_keep_their_places(self) -> None:
        """Rows are laid out as a patch is: (row, column, channel)."""
        patch = torch.arange(12.0).reshape(1, 3, 2, 2)
        rows = patchify(patch, 2)[0, 0]
        repeated = prediction_for(rows, 3, 5)
        assert repeated.equal(patchify(patch[:, [0, 1, 2, 0, 1]], 2)[0, 0])
        assert prediction_for(rows, 3, 1).equal(patchify(patch.mean(1, keepdim=True), 2)[0, 0])

    @pytest.mark.parametrize("channels", [1, 2, 5])
    def test_whole_models_fit(self, channels: int) -> None:
        found = adapt(weights_of(), TINY.encoder, Size(8, 20), statistics(channels))
        objective = found.build_objective()
        assert objective.encoder.channels == channels
        assert objective.target.out_dim == 16 * channels
        assert objective.encoder.mean.tolist() == pytest.approx([0.5] * channels)

    def test_grey_statistics_are_taken(self) -> None:
        found = adapt(weights_of(), TINY.encoder, TINY.image_size, GREY)
        assert found.spec.statistics == GREY
        assert found.encoder["std"].tolist() == pytest.approx([0.3])
