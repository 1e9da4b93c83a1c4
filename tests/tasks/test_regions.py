"""The heads on regions: pooling, targets and losses against literal definitions."""

import math

import pytest
import torch
from reference.problems import random
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from unmask.tasks.boxes import BACKGROUND, encoded
from unmask.tasks.regions import (
    OFFSET_SCALE,
    RegionHeads,
    Trained,
    box_losses,
    chosen_proposals,
    mask_loss,
    mask_targets,
    pooled,
)

STRIDES = (4.0, 8.0, 16.0, 32.0)


def ramps() -> list[Tensor]:
    """Levels whose two channels hold the x and y of each place's centre, in pixels of the picture, plus the level."""
    levels = []
    for number, stride in enumerate(STRIDES):
        side = int(1024 / stride)
        centres = (torch.arange(side) + 0.5) * stride
        x, y = centres[None].expand(side, -1), centres[:, None].expand(-1, side)
        levels.append(torch.stack([x, y, torch.full((side, side), float(number))])[None])
    return levels


@pytest.mark.parametrize(
    ("box", "level"),
    [
        ((100.0, 200.0, 130.0, 240.0), 0),
        ((100.0, 200.0, 211.9, 311.9), 0),  # below 112 pixels
        ((100.0, 200.0, 212.1, 312.1), 1),
        ((100.0, 100.0, 324.5, 324.5), 2),  # the canonical 224 pixels
        ((100.0, 100.0, 900.0, 800.0), 3),
    ],
)
def test_regions_are_pooled_where_they_are(box: tuple[float, ...], level: int) -> None:
    """On a ramp each bin holds the coordinates of its own centre, exactly; with half a pixel's shift it would not."""
    found = pooled(ramps(), [torch.tensor([box])], 7, STRIDES, 224.0)[0]
    left, top, right, bottom = box
    x = left + (torch.arange(7) + 0.5) * (right - left) / 7
    y = top + (torch.arange(7) + 0.5) * (bottom - top) / 7
    torch.testing.assert_close(found[0], x[None].expand(7, 7), atol=2e-2, rtol=1e-4)
    torch.testing.assert_close(found[1], y[:, None].expand(7, 7), atol=2e-2, rtol=1e-4)
    assert found[2].unique().tolist() == [level]


def test_pooling_keeps_the_order_of_boxes_and_images() -> None:
    levels = [torch.cat([level, level + 1000]) for level in ramps()]
    small, large = [40.0, 40, 60, 60], [100.0, 100, 800, 800]
    boxes = [torch.tensor([large, small]), torch.zeros(0, 4)]
    found = pooled(levels, boxes, 7, STRIDES, 224.0)
    assert found[:, 0, 3, 3].tolist() == pytest.approx([450, 50], abs=0.1)
    boxes = [torch.zeros(0, 4), torch.tensor([small])]
    assert pooled(levels, boxes, 7, STRIDES, 224.0)[0, 0, 3, 3].item() == pytest.approx(
        1050, abs=0.1
    )
    assert pooled(levels, [torch.zeros(0, 4)] * 2, 7, STRIDES, 224.0).shape == (0, 3, 7, 7)


def test_mask_targets_equal_shares_of_cells() -> None:
    """A cell is 1 if at least half of its sampled points lie on the object; compared where that is beyond doubt."""
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 5:25, 10:50] = True
    masks[1, 20:, :30] = True
    boxes = torch.tensor([[0.0, 0, 56, 28], [5.0, 12, 47, 40], [10, 5, 50, 25]])
    chosen = Trained(boxes, torch.tensor([0, 1, 0]))
    found = mask_targets(masks, chosen, 14)
    doubtful = 0
    for row, (left, top, right, bottom) in enumerate(boxes.tolist()):
        fine = masks[chosen.match[row]].repeat_interleave(10, 0).repeat_interleave(10, 1).float()
        for i in range(14):
            for j in range(14):
                y0, y1 = (top + (bottom - top) / 14 * (i + k) for k in (0, 1))
                x0, x1 = (left + (right - left) / 14 * (j + k) for k in (0, 1))
                share = fine[
                    round(y0 * 10) : round(y1 * 10), round(x0 * 10) : round(x1 * 10)
                ].mean()
                if abs(share - 0.5) < 0.26:  # bilinear samples blur the edge by half a pixel
                    doubtful += 1
                else:
                    assert found[row, i, j] == float(share > 0.5), (row, i, j)
    assert doubtful < 60
    assert set(found.unique().tolist()) == {0, 1}


def test_objects_are_proposed_too() -> None:
    proposals = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 10, 10]])
    objects = torch.tensor([[0.0, 0, 10, 9], [80, 80, 99, 99]])
    chosen = chosen_proposals(proposals, objects, 512, random(0))
    matches = dict(zip(map(tuple, chosen.boxes.tolist()), chosen.match.tolist(), strict=True))
    assert matches == {
        (0, 0, 10, 10): 0,
        (1, 0, 10, 10): 0,
        (50, 50, 60, 60): BACKGROUND,
        (0, 0, 10, 9): 0,
        (80, 80, 99, 99): 1,
    }


def problem() -> tuple[list[Trained], list[Tensor], list[Tensor], Tensor, Tensor]:
    """Two images, of which the second has background alone; 3 classes."""
    objects = [torch.tensor([[0.0, 0, 10, 9], [20, 20, 40, 50]]), torch.zeros(0, 4)]
    classes = [torch.tensor([2, 0]), torch.zeros(0).long()]
    first = Trained(
        torch.tensor([[0.0, 0, 10, 10], [21, 22, 39, 50], [5, 5, 9, 9]]), torch.tensor([0, 1, -1])
    )
    second = Trained(torch.tensor([[0.0, 0, 3, 3]]), torch.tensor([-1]))
    draw = random(4)
    scores, offsets = torch.randn(4, 4, generator=draw), torch.randn(4, 3, 4, generator=draw)
    return [first, second], objects, classes, scores, offsets


def test_box_losses_equal_a_loop() -> None:
    chosen, objects, classes, scores, offsets = problem()
    losses = box_losses(scores, offsets, chosen, objects, classes)
    labels = [2, 0, 3, 3]
    entropies = [-scores[n].log_softmax(0)[labels[n]].item() for n in range(4)]
    assert losses["classes"].item() == pytest.approx((sum(entropies[:3]) / 3 + entropies[3]) / 2)
    distance = 0.0
    for n in range(2):
        target = encoded(objects[0][n, None], chosen[0].boxes[n, None], OFFSET_SCALE)[0]
        distance += (offsets[n, labels[n]] - target).abs().sum().item()
    assert losses["boxes"].item() == pytest.approx(distance / 3 / 2, rel=1e-5)


def test_mask_loss_is_the_mean_of_each_image() -> None:
    chosen, *_ = problem()
    on = [
        Trained(chosen[0].boxes[:2], chosen[0].match[:2]),
        Trained(torch.zeros(0, 4), torch.zeros(0).long()),
    ]
    masks = [torch.zeros(2, 60, 60, dtype=torch.bool), torch.zeros(0, 60, 60, dtype=torch.bool)]
    masks[0][0, :9, :10] = masks[0][1, 20:50, 20:40] = True
    logits = torch.randn(2, 28, 28, generator=random(0))
    truth = mask_targets(masks[0], on[0], 28)
    expected = -torch.where(truth > 0, F.logsigmoid(logits), F.logsigmoid(-logits)).mean() / 2
    assert mask_loss(logits, on, masks).item() == pytest.approx(expected.item(), rel=1e-5)
    assert mask_loss(torch.zeros(0, 28, 28), on[1:] * 2, masks[1:] * 2).item() == 0


def test_heads_work_on_no_regions_and_begin_undecided() -> None:
    """Scores of all classes are alike at first, and masks are at one half."""
    torch.manual_seed(0)
    heads = RegionHeads(16, 3, True, 16, STRIDES)
    levels = [torch.randn(1, 16, int(64 / s), int(64 / s), generator=random(1)) for s in STRIDES]
    boxes = [torch.tensor([[4.0, 4, 40, 50], [0, 0, 64, 64]])]
    scores, offsets = heads.of_boxes(levels, boxes)
    assert scores.shape == (2, 4)
    assert offsets.shape == (2, 3, 4)
    assert scores.softmax(1).max() < 0.35
    assert offsets.abs().max() < 0.1
    masks = heads.masks_of(levels, boxes, torch.tensor([2, 0]))
    assert masks.shape == (2, 28, 28)
    assert masks.abs().max() < 0.2
    nothing = [torch.zeros(0, 4)]
    assert heads.of_boxes(levels, nothing)[0].shape == (0, 4)
    assert heads.masks_of(levels, nothing, torch.zeros(0).long()).shape == (0, 28, 28)
    assert math.isfinite(masks.sum().item())


def test_torchvision_pools_half_a_place_off() -> None:
    """The difference that is corrected here: unaligned regions are shifted."""
    level = ramps()[2]
    box = torch.tensor([[0, 100.0, 100, 324, 324]])
    off = roi_align(level, box, 7, 1 / 16, 2, aligned=False)[0, 0, 3, 3].item()
    ours = pooled(ramps(), [box[:, 1:]], 7, STRIDES, 224.0)[0, 0, 3, 3].item()
    assert ours == pytest.approx(212, abs=0.01)
    assert off == pytest.approx(212 + 8, abs=0.01)
