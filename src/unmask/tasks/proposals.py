"""The region proposal network: boxes that may hold an object, from every place of every level of a pyramid.

Faster R-CNN (Ren and others, 2015) with detectron2's settings for ViTDet (Apache-2.0). torchvision's own differs in the box
loss (smooth L1 there, plain L1 here), in rounded anchors, and in random draws, which here are those of each image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.tasks.boxes import Scale, clipped, decoded, encoded, matched, sampled, with_area

_RATIOS = (0.5, 1.0, 2.0)  # height to width
_SIDE = 8.0  # of a square anchor, in strides of its level: 32 pixels at stride 4
_SAMPLED, _SHARE = (
    256,
    0.5,
)  # anchors of an image in the loss, and how many of them at most on objects
_BACKGROUND_BELOW, _OBJECT_FROM = 0.3, 0.7  # overlap
_OVERLAP = 0.7  # of proposals of one level, above which the weaker is left out
_KEPT = 1000  # proposals of an image
_BEFORE = {
    True: 2000,
    False: 1000,
}  # of a level, before weaker ones are left out; in training and in testing
_UNSCALED: Scale = (1.0, 1.0, 1.0, 1.0)

Levels = Sequence[Float[Tensor, "b c _h _w"]]


class Proposals(NamedTuple):
    """What the network finds on a batch."""

    scores: Float[Tensor, "b anchors"]
    """Logit of an object at each anchor."""
    offsets: Float[Tensor, "b anchors 4"]
    """Offsets of the boxes from the anchors."""
    anchors: Float[Tensor, "anchors 4"]
    counts: list[int]
    """Number of anchors of each level."""


class RegionProposals(nn.Module):
    """Two convolutions on every level, shared, then scores and offsets for three anchors at each place."""

    def __init__(self, channels: int, strides: Sequence[float]) -> None:
        from torchvision.models.detection.rpn import RPNHead

        super().__init__()
        self.strides = tuple(strides)
        self.head = RPNHead(channels, len(_RATIOS), conv_depth=2)

    def forward(self, levels: Levels) -> Proposals:
        """Scores and offsets at all anchors, in float32."""
        scores, offsets = self.head(list(levels))
        anchors = [
            level_anchors(level.shape[2], level.shape[3], stride).to(level.device)
            for level, stride in zip(levels, self.strides, strict=True)
        ]
        return Proposals(
            # [b anchors h w] -> [b h w anchors]
            torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in scores], 1).float(),
            torch.cat(
                [
                    level.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
                    for level in offsets
                ],
                1,
            ).float(),
            torch.cat(anchors),
            [len(level) for level in anchors],
        )


def level_anchors(rows: int, columns: int, stride: float) -> Float[Tensor, "n 4"]:
    """The anchors of a level: three shapes of one area around each place, in the order (row, column, shape)."""
    ratios = torch.tensor(_RATIOS)
    heights = _SIDE * stride * ratios.sqrt()
    widths = _SIDE * stride / ratios.sqrt()
    shapes = torch.stack([-widths, -heights, widths, heights], 1) / 2
    y, x = (torch.arange(count) * stride for count in (rows, columns))
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).repeat(
        1, 1, 2
    )  # [rows columns 4]
    return (places[:, :, None] + shapes).flatten(0, 2)


def proposed(
    found: Proposals, sizes: Sequence[tuple[int, int]], training: bool
) -> list[Float[Tensor, "_n 4"]]:
    """The best boxes of each image, at most a thousand, cut to its height and width; without gradients.

    Boxes that overlap a better one of the same level are left out.
    """
    from torchvision.ops import batched_nms

    chosen, levels = _strongest(found, _BEFORE[training])
    boxes = []
    for row, (height, width) in enumerate(sizes):
        offsets, scores = found.offsets[row].detach(), found.scores[row].detach()
        best = decoded(offsets[chosen[row]], found.anchors[chosen[row]], _UNSCALED)
        best = clipped(best, height, width)
        usable = with_area(best) & scores[chosen[row]].isfinite()
        best, strength, level = best[usable], scores[chosen[row]][usable], levels[usable]
        boxes.append(best[batched_nms(best, strength, level, _OVERLAP)[:_KEPT]])
    return boxes


def _strongest(found: Proposals, most: int) -> tuple[Tensor, Tensor]:
    """The numbers [b n] of the anchors with the highest scores of each level, and the levels [n]."""
    numbers, levels, start = [], [], 0
    for level, scores in enumerate(found.scores.detach().split(found.counts, 1)):
        best = scores.topk(min(most, scores.shape[1]), dim=1).indices
        numbers.append(best + start)
        levels.append(torch.full((best.shape[1],), level, device=scores.device))
        start += scores.shape[1]
    return torch.cat(numbers, 1), torch.cat(levels)


def proposal_losses(
    found: Proposals,
    objects: Sequence[Float[Tensor, "_n 4"]],
    randoms: Sequence[torch.Generator],
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of objects against background, and L1 of the offsets of anchors on objects.

    Both are sums over sampled anchors divided by 256 and by the number of images, as in detectron2, so that the losses of
    parts of a batch add up.
    """
    score_loss, box_loss = found.scores.sum() * 0, found.offsets.sum() * 0
    for row, (boxes, random) in enumerate(zip(objects, randoms, strict=True)):
        match = matched(boxes, found.anchors, _BACKGROUND_BELOW, _OBJECT_FROM, best_too=True)
        sample = sampled(match, _SAMPLED, _SHARE, random)
        scores = found.scores[row]
        for numbers, truth in ((sample.objects, 1.0), (sample.background, 0.0)):
            chosen = scores[numbers]
            score_loss = score_loss + F.binary_cross_entropy_with_logits(
                chosen, torch.full_like(chosen, truth), reduction="sum"
            )
        targets = encoded(boxes[match[sample.objects]], found.anchors[sample.objects], _UNSCALED)
        box_loss = box_loss + (found.offsets[row][sample.objects] - targets).abs().sum()
    share = _SAMPLED * len(objects)
    return {"objectness": score_loss / share, "proposals": box_loss / share}
