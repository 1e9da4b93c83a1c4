"""The region proposal network against torchvision's, with the settings in which the two differ made equal."""

import pytest
import torch
from reference.problems import random
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import _utils as torchvision_parts
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from unmask.tasks.proposals import RegionProposals, level_anchors, proposal_losses, proposed

CHANNELS, STRIDES = 8, (4, 8, 16, 32, 64)
SIZES = [(128, 128), (100, 120)]


def levels() -> list[Tensor]:
    return [torch.randn(2, CHANNELS, 128 // s, 128 // s, generator=random(s)) for s in STRIDES]


def network() -> RegionProposals:
    torch.manual_seed(0)
    module = RegionProposals(CHANNELS, STRIDES)
    for parameter in module.parameters():
        parameter.data += torch.randn(parameter.shape, generator=random(3)) * 0.05
    return module


def theirs(module: RegionProposals, training: bool) -> RegionProposalNetwork:
    """torchvision's network with our head and with anchors that are not rounded."""
    sizes = tuple((8 * stride,) for stride in STRIDES)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    ratios = torch.tensor([0.5, 1.0, 2.0]).sqrt()
    anchors.cell_anchors = [
        torch.stack([-s / ratios, -s * ratios, s / ratios, s * ratios], 1) / 2 for (s,) in sizes
    ]
    counts = {"training": 2000, "testing": 1000}, {"training": 1000, "testing": 1000}
    found = RegionProposalNetwork(anchors, module.head, 0.7, 0.3, 256, 0.5, *counts, 0.7)
    return found.train(training)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_proposals_equal_torchvision(training: bool) -> None:
    module = network()
    images = ImageList(torch.zeros(2, 3, 128, 128), SIZES)
    named = {str(number): level for number, level in enumerate(levels())}
    targets = [{"boxes": torch.tensor([[2.0, 2, 30, 30]])}] * 2
    expected, _ = theirs(module, training)(images, named, targets)
    found = proposed(module(levels()), SIZES, training)
    for ours, others, (height, width) in zip(found, expected, SIZES, strict=True):
        assert len(ours) == len(others) > 100
        distance = (ours[:, None] - others[None]).abs().amax(-1)  # equal probabilities swap places
        assert float(distance.amin(0).max()) < 1e-3
        assert float(distance.amin(1).max()) < 1e-3
        assert float(ours[:, 2].max()) <= width
        assert float(ours[:, 3].max()) <= height


def test_anchors_equal_a_loop() -> None:
    expected = [
        (x * 8 - w / 2, y * 8 - h / 2, x * 8 + w / 2, y * 8 + h / 2)
        for y in range(3)
        for x in range(2)
        for w, h in ((64 * 2**0.5, 64 / 2**0.5), (64, 64), (64 / 2**0.5, 64 * 2**0.5))
    ]
    torch.testing.assert_close(level_anchors(3, 2, 8.0), torch.tensor(expected))
    assert float(level_anchors(1, 2, 3.5)[3:, :].mean()) == pytest.approx(3.5 / 2)


def test_losses_equal_a_loop() -> None:
    """detectron2's definition, with the sample of each image's own generator."""
    module = network()
    found = module(levels())
    objects = [torch.tensor([[10.0, 10, 60, 50], [70, 70, 100, 110]]), torch.zeros(0, 4)]
    losses = proposal_losses(found, objects, [random(1), random(2)])
    coder = torchvision_parts.BoxCoder((1.0, 1.0, 1.0, 1.0))
    scores_sum = offsets_sum = 0.0
    for row, boxes in enumerate(objects):
        match = torch.full((len(found.anchors),), -1)
        if len(boxes):
            overlaps = box_iou(boxes, found.anchors)
            match = torchvision_parts.Matcher(0.7, 0.3, True)(overlaps)
        positive, negative = (match >= 0).nonzero()[:, 0], (match == -1).nonzero()[:, 0]
        draw = random(row + 1)
        positive = positive[torch.randperm(len(positive), generator=draw)[:128]]
        order = torch.randperm(len(negative), generator=draw)
        negative = negative[order[: 256 - len(positive)]]
        assert len(positive) + len(negative) == 256
        for number in positive.tolist():
            scores_sum -= F.logsigmoid(found.scores[row, number]).item()
            target = coder.encode_single(boxes[match[number], None], found.anchors[number, None])
            offsets_sum += (found.offsets[row, number] - target[0]).abs().sum().item()
        for number in negative.tolist():
            scores_sum -= F.logsigmoid(-found.scores[row, number]).item()
    assert losses["objectness"].item() == pytest.approx(scores_sum / 512, rel=1e-4)
    assert losses["proposals"].item() == pytest.approx(offsets_sum / 512, rel=1e-4)
    assert offsets_sum > 0


def test_parts_of_a_batch_add_up() -> None:
    module = network()
    objects = [torch.tensor([[10.0, 10, 60, 50]]), torch.tensor([[70.0, 70, 100, 110]])]
    whole = proposal_losses(module(levels()), objects, [random(1), random(2)])
    parts = [
        proposal_losses(
            module([level[row, None] for level in levels()]), [objects[row]], [random(row + 1)]
        )
        for row in range(2)
    ]
    for name, value in whole.items():
        assert value.item() == pytest.approx(sum(part[name].item() for part in parts) / 2, rel=1e-5)
