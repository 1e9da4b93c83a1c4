"""The simple feature pyramid: its size as published, and what each level sees."""

import torch
from reference.problems import random

from unmask.tasks.dense_layers import ChannelNorm
from unmask.tasks.pyramid import SCALES, SimplePyramid


def test_the_pyramid_of_vit_b_has_as_many_parameters_as_the_published_one() -> None:
    """Counted by hand from detectron2's layers: 2,115,904 + 1,869,184 + 2 x 787,456."""
    with torch.device("meta"):
        pyramid = SimplePyramid(768, 256)
    assert sum(parameter.numel() for parameter in pyramid.parameters()) == 5_560_000


@torch.no_grad()
def test_levels_have_their_scales() -> None:
    torch.manual_seed(0)
    levels = SimplePyramid(16, 8)(torch.rand(2, 16, 12, 8))
    for level, scale in zip(levels, SCALES, strict=True):
        assert level.shape == (2, 8, 12 * scale, 8 * scale)
    assert torch.equal(levels[4], levels[3][:, :, ::2, ::2])


@torch.no_grad()
def test_a_map_of_one_place_has_all_levels() -> None:
    torch.manual_seed(0)
    levels = SimplePyramid(16, 8)(torch.rand(1, 16, 1, 1))
    assert [tuple(level.shape[2:]) for level in levels] == [(4, 4), (2, 2), (1, 1), (1, 1), (1, 1)]


@torch.no_grad()
def test_a_norm_over_channels_equals_its_formula() -> None:
    norm = ChannelNorm(5)
    norm.weight.normal_(generator=random(0))
    norm.bias.normal_(generator=random(1))
    maps = torch.rand(2, 5, 3, 4, generator=random(2))
    mean, variance = maps.mean(1, keepdim=True), maps.var(1, keepdim=True, unbiased=False)
    expected = (maps - mean) / (variance + 1e-6).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(maps), expected, atol=1e-5, rtol=1e-5)
