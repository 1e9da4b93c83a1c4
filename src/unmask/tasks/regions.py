"""The heads on regions of a pyramid: classes and boxes of proposals, and masks of objects.

Mask R-CNN (He and others, 2017) with the heads of "Benchmarking Detection Transfer Learning with Vision Transformers" (Li and
others, 2021) as in detectron2's ViTDet (Apache-2.0). torchvision's heads are used; its losses and its pooling are not, which
cost precision: its regions are off by half a pixel of the map with two samples per bin, and its box loss is smooth L1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.tasks.boxes import BACKGROUND, Scale, areas, encoded, matched, sampled
from unmask.tasks.dense_layers import ChannelNorm
from unmask.tasks.proposals import Levels

OFFSET_SCALE: Scale = (10.0, 10.0, 5.0, 5.0)
"""Factors on the offsets of boxes from proposals."""

_BOX_SIDE, _MASK_SIDE = 7, 14  # places of a pooled region along a side
_OVERLAP = 0.5  # of a proposal with an object, from which on it counts as the object
_SHARE = 0.25  # of sampled proposals, at most, that are on objects
_CANONICAL = 14.0  # side in patches of a region that is pooled from the level of the encoder's own resolution
_CANONICAL_LEVEL = 2

Boxes = Sequence[Float[Tensor, "_n 4"]]


class Trained(NamedTuple):
    """The proposals of an image that the heads learn from."""

    boxes: Float[Tensor, "n 4"]
    match: Int[Tensor, " n"]
    """The object of each; below 0 on background."""


class BoxHead(nn.Module):
    """Four convolutions with norms and a linear layer, then scores of classes and background, and offsets for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

        super().__init__()
        width = 4 * channels
        self.layers = FastRCNNConvFCHead(
            (channels, _BOX_SIDE, _BOX_SIDE), [channels] * 4, [width], ChannelNorm
        )
        self.scores = nn.Linear(width, classes + 1)
        self.offsets = nn.Linear(width, 4 * classes)
        _initialize_linear(self.layers)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.offsets.weight, std=0.001)
        nn.init.zeros_(self.scores.bias)
        nn.init.zeros_(self.offsets.bias)

    def forward(
        self, regions: Float[Tensor, "n c side side"]
    ) -> tuple[Float[Tensor, "n classes_and_background"], Float[Tensor, "n classes 4"]]:
        """Scores and offsets in float32; the last score is that of background."""
        features = self.layers(regions)
        return self.scores(features).float(), self.offsets(features).unflatten(1, (-1, 4)).float()


class MaskHead(nn.Module):
    """Four convolutions with norms, a deconvolution, and a mask for each class, 28 x 28."""

    def __init__(self, channels: int, classes: int) -> None:
        from torchvision.models.detection.mask_rcnn import MaskRCNNHeads

        super().__init__()
        self.layers = MaskRCNNHeads(channels, [channels] * 4, 1, ChannelNorm)
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.masks = nn.Conv2d(channels, classes, 1)
        nn.init.kaiming_normal_(self.enlarge.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.masks.weight, std=0.001)
        for layer in (self.enlarge, self.masks):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(
        self, regions: Float[Tensor, "n c side side"], classes: Int[Tensor, " n"]
    ) -> Float[Tensor, "n twice twice"]:
        """The logits of the mask of each region's class, in float32."""
        masks = self.masks(F.relu(self.enlarge(self.layers(regions))))
        return masks[torch.arange(len(masks), device=masks.device), classes].float()


class RegionHeads(nn.Module):
    """The box head and, where masks are known, the mask head."""

    def __init__(
        self, channels: int, classes: int, masks: bool, patch_size: int, strides: Sequence[float]
    ) -> None:
        super().__init__()
        self.patch_size, self.strides = patch_size, tuple(strides)
        self.box = BoxHead(channels, classes)
        self.mask = MaskHead(channels, classes) if masks else None

    def of_boxes(self, levels: Levels, boxes: Boxes) -> tuple[Tensor, Tensor]:
        """Scores [n classes + 1] and offsets [n classes 4] of all boxes, image by image."""
        return self.box(self._pooled(levels, boxes, _BOX_SIDE))

    def masks_of(
        self, levels: Levels, boxes: Boxes, classes: Int[Tensor, " n"]
    ) -> Float[Tensor, "n twice twice"]:
        """The logits of the masks within all boxes, image by image."""
        assert self.mask is not None
        return self.mask(self._pooled(levels, boxes, _MASK_SIDE), classes)

    def _pooled(self, levels: Levels, boxes: Boxes, side: int) -> Float[Tensor, "n c side side"]:
        return pooled(levels, boxes, side, self.strides, _CANONICAL * self.patch_size)


def pooled(
    levels: Levels, boxes: Boxes, side: int, strides: Sequence[float], canonical: float
) -> Float[Tensor, "n c side side"]:
    """The features within each box, image by image, from the level that suits the box's size.

    Feature Pyramid Networks (Lin and others, 2017), equation 1: boxes of `canonical` pixels are pooled from the third
    level, those half as large from the second. RoIAlign with aligned regions and as many samples as a bin has places.
    """
    from torchvision.ops import roi_align

    together = torch.cat(
        [torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)]
    )
    level = (_CANONICAL_LEVEL + (areas(together[:, 1:]).sqrt() / canonical + 1e-8).log2()).floor()
    level = level.clamp(0, len(strides) - 1)
    parts: list[Tensor] = []
    places: list[Tensor] = []
    for number, stride in enumerate(strides):
        chosen = (level == number).nonzero()[:, 0]
        # in float32: coordinates of half precision are whole pixels off
        features = levels[number].float()
        parts.append(roi_align(features, together[chosen], side, 1 / stride, 0, aligned=True))
        places.append(chosen)
    return torch.cat(parts)[torch.cat(places).argsort()]


def chosen_proposals(
    proposals: Float[Tensor, "n 4"],
    objects: Float[Tensor, "objects 4"],
    count: int,
    random: torch.Generator,
) -> Trained:
    """A sample of an image's proposals, and of the boxes of its objects, which are proposed too."""
    boxes = torch.cat([proposals, objects])
    match = matched(objects, boxes, _OVERLAP, _OVERLAP)
    numbers = torch.cat(sampled(match, count, _SHARE, random))
    return Trained(boxes[numbers], match[numbers])


def assumed_proposals(objects: Float[Tensor, "objects 4"], count: int, load: float) -> Trained:
    """As many proposals as `chosen_proposals` gives, with this share of the most that can be on objects; to measure a step."""
    known = objects if len(objects) else objects.new_tensor([[0.0, 0.0, 16.0, 16.0]])
    numbers = torch.arange(count, device=objects.device)
    is_on = numbers < round(load * int(count * _SHARE)) * bool(len(objects))
    match = torch.where(is_on, numbers % len(known), BACKGROUND)
    return Trained(known[numbers % len(known)], match)


def box_losses(
    scores: Float[Tensor, "n classes_and_background"],
    offsets: Float[Tensor, "n classes 4"],
    chosen: Sequence[Trained],
    objects: Boxes,
    classes: Sequence[Int[Tensor, " _n"]],
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of the classes, and L1 of the offsets of proposals on objects.

    Means over the proposals of an image, then over images: the published runs had one image on each GPU. So the losses of
    parts of a batch add up.
    """
    class_loss, box_loss = scores.sum() * 0, offsets.sum() * 0
    counts = [len(one.boxes) for one in chosen]
    for one, known, truth, logits, guess in zip(
        chosen, objects, classes, scores.split(counts), offsets.split(counts), strict=True
    ):
        share = max(1, len(one.boxes)) * len(chosen)
        on = one.match >= 0
        labels = torch.full_like(one.match, scores.shape[1] - 1)
        labels[on] = truth[one.match[on]]
        class_loss = class_loss + F.cross_entropy(logits, labels, reduction="sum") / share
        targets = encoded(known[one.match[on]], one.boxes[on], OFFSET_SCALE)
        box_loss = box_loss + (guess[on, labels[on]] - targets).abs().sum() / share
    return {"classes": class_loss, "boxes": box_loss}


def mask_loss(
    logits: Float[Tensor, "n side side"],
    chosen: Sequence[Trained],
    masks: Sequence[Bool[Tensor, "_n _h _w"]],
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the masks of proposals on objects: the mean over those of an image, then over images.

    An image without objects counts with 0.
    """
    loss, counts = logits.sum() * 0, [len(one.boxes) for one in chosen]
    for one, known, guess in zip(chosen, masks, logits.split(counts), strict=True):
        if len(one.boxes):
            truth = mask_targets(known, one, logits.shape[-1])
            loss = loss + F.binary_cross_entropy_with_logits(guess, truth) / len(chosen)
    return loss


def mask_targets(
    masks: Bool[Tensor, "objects h w"], chosen: Trained, side: int
) -> Float[Tensor, "n side side"]:
    """1 where more than half of a cell of a box belongs to its object, else 0."""
    from torchvision.ops import roi_align

    regions = torch.cat([chosen.match[:, None].float(), chosen.boxes], 1)
    shares = roi_align(masks[:, None].float(), regions, side, 1.0, 0, aligned=True)
    return (shares[:, 0] >= 0.5).float()


def _initialize_linear(module: nn.Module) -> None:
    """detectron2's initialisation of linear layers (Caffe2's Xavier): uniform, by the inputs alone; zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.kaiming_uniform_(part.weight, a=1)
            nn.init.zeros_(part.bias)
