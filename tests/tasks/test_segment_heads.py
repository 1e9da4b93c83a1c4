"""Segmentation heads against those of transformers with copied weights, and against equations written out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference.problems import random
from torch import nn
from torch.nn import functional as F

from unmask.errors import SettingsError
from unmask.tasks.dpt import DPT, DPTHead
from unmask.tasks.map_layers import (
    BatchNorms,
    ChannelNorm,
    JointBatchNorm,
    NoNorms,
    PatchMaps,
    kept_channels,
)
from unmask.tasks.segment_heads import FullyConvolutional, LinearMap
from unmask.tasks.upernet import PyramidNeck, UperNet, UperNetHead

WIDTH, CHANNELS, CLASSES = 12, 8, 5
CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # sums in another order


def maps_of(grid: tuple[int, int] = (4, 6), images: int = 3, seed: int = 0) -> PatchMaps:
    """The outputs of four blocks."""
    generator = random(seed)
    patches = [torch.randn(images, WIDTH, *grid, generator=generator) for _ in range(4)]
    classes = [torch.randn(images, WIDTH, generator=generator) for _ in range(4)]
    return PatchMaps(tuple(patches), tuple(classes))


def moved(module: nn.Module) -> Any:
    """With norms, biases and running statistics off 1 and 0, so that forgetting one is noticed."""
    generator = random(9)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            shift = torch.randn(tensor.shape, generator=generator) * 0.1
            tensor.add_(shift.abs() if name.endswith("var") else shift)
    return module


def copy(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy all tensors, which come in the same order."""
    tensors = [t for n, t in theirs.state_dict().items() if not n.endswith("num_batches_tracked")]
    state = ours.state_dict()
    assert len(state) == len(tensors)
    for (name, own), tensor in zip(state.items(), tensors, strict=True):
        assert own.shape == tensor.shape, name
        own.copy_(tensor)


def their_upernet() -> Any:
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetHead as Theirs

    config = UperNetConfig(hidden_size=CHANNELS, num_labels=CLASSES)
    return moved(Theirs(config, in_channels=[WIDTH] * 4))


def our_upernet(theirs: Any) -> UperNetHead:
    spec = UperNet(channels=CHANNELS, norm=BatchNorms())
    ours = spec.build(WIDTH, CLASSES)
    for pair in (
        (theirs.psp_modules, ours.pools),
        (theirs.bottleneck, ours.bottleneck),
        (theirs.lateral_convs, ours.laterals),
        (theirs.fpn_convs, ours.smoothing),
        (theirs.fpn_bottleneck, ours.fusion),
        (theirs.classifier, ours.scorer),
    ):
        copy(*pair)
    return ours


def their_neck() -> Any:
    from transformers import BeitConfig
    from transformers.models.beit.modeling_beit import BeitFPNNeck

    return moved(BeitFPNNeck(BeitConfig(hidden_size=WIDTH)))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("grid", [(4, 6), (8, 2)])
def test_upernet_and_its_neck_equal_transformers(training: bool, grid: tuple[int, int]) -> None:
    """In training too, where each head normalises by the statistics of the batch."""
    theirs, neck = their_upernet().train(training), their_neck().train(training)
    ours = our_upernet(theirs).train(training)
    copy(neck, ours.neck)
    maps = maps_of(grid)
    expected = theirs(neck(list(maps.patches)))
    found = ours(maps)
    assert found.shape == (3, CLASSES, 4 * grid[0], 4 * grid[1])
    torch.testing.assert_close(found, expected, **CLOSE)
    for name, tensor in our_upernet(theirs).state_dict().items():  # running averages
        if not name.startswith("neck"):
            torch.testing.assert_close(ours.state_dict()[name], tensor, **CLOSE)


def test_auxiliary_head_equals_transformers() -> None:
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetFCNHead

    config = UperNetConfig(auxiliary_channels=CHANNELS, num_labels=CLASSES)
    theirs = moved(UperNetFCNHead(config, in_channels=[WIDTH] * 4)).eval()
    ours = FullyConvolutional(WIDTH, CHANNELS, CLASSES, BatchNorms()).eval()
    copy(theirs, ours)
    maps = maps_of().patches
    torch.testing.assert_close(ours(maps[2]), theirs(list(maps)), **CLOSE)


@pytest.mark.parametrize("readout", ["ignore", "project"])
@pytest.mark.parametrize("grid", [(4, 6), (3, 5)], ids=["even", "odd"])
def test_dpt_equals_transformers(readout: Any, grid: tuple[int, int]) -> None:
    from transformers import DPTConfig
    from transformers.models.dpt.modeling_dpt import DPTNeck, DPTSemanticSegmentationHead

    config = DPTConfig(
        hidden_size=WIDTH,
        readout_type=readout,
        neck_hidden_sizes=[6, 7, 8, 9],
        fusion_hidden_size=CHANNELS,
        num_labels=CLASSES,
        is_hybrid=False,
    )
    neck, head = (moved(one(config)).eval() for one in (DPTNeck, DPTSemanticSegmentationHead))
    spec = DPT(channels=CHANNELS, map_channels=(6, 7, 8, 9), readout=readout, norm=BatchNorms())
    ours = spec.build(WIDTH, CLASSES).eval()
    copy_dpt(neck, head, ours)
    maps = maps_of(grid)
    tokens = [
        torch.cat([token[:, None], patches.flatten(2).mT], 1)
        for patches, token in zip(maps.patches, maps.classes, strict=True)
    ]
    expected = head(neck(tokens, *grid))
    found = ours(maps)
    torch.testing.assert_close(found, expected, **CLOSE)


def copy_dpt(neck: Any, head: Any, ours: DPTHead) -> None:
    stage = neck.reassemble_stage
    for number, reassembled in enumerate(ours.reassembled):
        if reassembled.readout is not None:
            copy(stage.readout_projects[number], reassembled.readout)
        copy(stage.layers[number].projection, reassembled.project)
        copy(stage.layers[number].resize, reassembled.resize)
    copy(neck.convs, ours.narrow)
    for theirs, fusion in zip(neck.fusion_stage.layers, ours.fusions, strict=True):
        if fusion.level is not None:
            copy(theirs.residual_layer1, fusion.level)
        copy(theirs.residual_layer2, fusion.fused)
        copy(theirs.projection, fusion.project)
    copy(nn.Sequential(head.head[0], head.head[1]), ours.convolution)
    copy(head.head[4], ours.scorer)


@pytest.mark.parametrize("readout", ["ignore", "append"])
def test_linear_map_is_a_product_at_each_patch(readout: Any) -> None:
    head = moved(LinearMap(readout=readout).build(WIDTH, CLASSES))
    maps = PatchMaps(maps_of().patches[3:], maps_of().classes[3:])
    found = head(maps)
    weight, bias = head.scorer.weight[:, :, 0, 0], head.scorer.bias
    for row in range(4):
        for column in range(6):
            values = maps.patches[0][:, :, row, column]
            if readout == "append":
                values = torch.cat([values, maps.classes[0]], 1)
            truth = values @ weight.T + bias
            torch.testing.assert_close(found[:, :, row, column], truth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", [UperNet(channels=8), DPT(channels=8, map_channels=(2, 3, 4, 5))])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (5, 2), (7, 7)])
def test_grids_of_any_size(head: Any, grid: tuple[int, int]) -> None:
    scores = head.build(WIDTH, CLASSES)(maps_of(grid))
    assert scores.isfinite().all()
    assert scores.shape[:2] == (3, CLASSES)
    if isinstance(head, UperNet):
        assert scores.shape[2:] == (4 * grid[0], 4 * grid[1])


@pytest.mark.parametrize("head", [UperNet(channels=8), DPT(channels=8), LinearMap()])
def test_with_layer_norms_an_image_does_not_see_the_others(head: Any) -> None:
    module = head.build(WIDTH, CLASSES).train()
    maps = maps_of()
    used = PatchMaps(*(part[-len(head.blocks(12)) :] for part in maps))
    first = PatchMaps(*(tuple(one[:1] for one in part) for part in used))
    torch.testing.assert_close(module(first), module(used)[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_equals_torchs(training: bool) -> None:
    ours, theirs = JointBatchNorm(WIDTH).train(training), nn.BatchNorm2d(WIDTH).train(training)
    moved(theirs)
    copy(theirs, ours)
    for seed in range(3):
        maps = maps_of(seed=seed).patches[0].requires_grad_()
        again = maps.detach().clone().requires_grad_()
        found, expected = ours(maps), theirs(again)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(maps.grad, again.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_batch_norm_of_a_single_value_uses_the_running_averages() -> None:
    norm = JointBatchNorm(WIDTH)
    maps = torch.randn(1, WIDTH, 1, 1, generator=random(0))
    torch.testing.assert_close(norm.train()(maps), norm.eval()(maps))


def test_channel_norm_equals_a_layer_norm_of_channels_last() -> None:
    ours, theirs = moved(ChannelNorm(WIDTH)), nn.LayerNorm(WIDTH, eps=1e-6)
    copy(ours, theirs)
    maps = maps_of().patches[0]
    truth = theirs(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours(maps), truth)


def test_dropped_channels_are_those_of_the_image_and_keep_the_mean() -> None:
    kept = kept_channels(0.25, 400, 50, random(0))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    head = moved(LinearMap().build(WIDTH, CLASSES))
    maps = PatchMaps(maps_of().patches[3:], maps_of().classes[3:])
    kept = kept_channels(0.5, 3, WIDTH, random(1))
    dropped = PatchMaps((maps.patches[0] * kept,), maps.classes)
    torch.testing.assert_close(head(maps, kept), head(dropped))


@pytest.mark.parametrize(
    ("depth", "blocks"), [(12, (3, 6, 9, 12)), (2, (1, 1, 1, 2)), (1, (1,) * 4)]
)
def test_quarters_of_the_depth(depth: int, blocks: tuple[int, ...]) -> None:
    assert UperNet().blocks(depth) == DPT().blocks(depth) == blocks


def test_odd_blocks_are_refused() -> None:
    with pytest.raises(SettingsError, match="end with the last block of the encoder, which has 12"):
        UperNet(taps=(2, 4, 6, 8)).blocks(12)
    for taps in ((4, 6), (4, 6, 5, 12), (0, 4, 8, 12)):
        with pytest.raises(SettingsError, match="four blocks counted from 1 in rising order"):
            replace(DPT(), taps=taps)


def test_without_norms_convolutions_have_a_bias() -> None:
    head = UperNet(channels=8, norm=NoNorms()).build(WIDTH, CLASSES)
    assert head.bottleneck[0].bias is not None
    assert UperNet(channels=8).build(WIDTH, CLASSES).bottleneck[0].bias is None
    assert F.relu(head(maps_of())).isfinite().all()


def test_neck_is_four_scales() -> None:
    sizes = [tuple(one.shape[2:]) for one in PyramidNeck(WIDTH, NoNorms())(maps_of((4, 6)).patches)]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]
