"""Boxes of objects: offsets from reference boxes, matching by overlap, and sampling for the losses.

Boxes are (left, top, right, bottom) in pixels. Faster R-CNN (Ren and others, 2015, section 3.1), with detectron2's
settings (Apache-2.0).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Boxes = Float[Tensor, "n 4"]
Scale = tuple[float, float, float, float]

BACKGROUND = -1
"""The match of a box that overlaps no object enough."""
IGNORED = -2
"""The match of a box that counts neither as an object nor as background."""

_LARGEST = math.log(1000 / 16)  # of a factor on width or height: keeps exp from overflowing


def encoded(boxes: Boxes, references: Boxes, scale: Scale) -> Float[Tensor, "n 4"]:
    """The offsets of boxes from references: shift of the centre relative to the size, and logarithm of the size's factor.

    Each is multiplied by its `scale`, so that all four are of order 1.
    """
    centres, sizes = _centres(references)
    new_centres, new_sizes = _centres(boxes)
    shifts = (new_centres - centres) / sizes
    return torch.cat([shifts, (new_sizes / sizes).log()], 1) * boxes.new_tensor(scale)


def decoded(offsets: Float[Tensor, "n 4"], references: Boxes, scale: Scale) -> Float[Tensor, "n 4"]:
    """The boxes with these offsets from the references: the inverse of `encoded`."""
    centres, sizes = _centres(references)
    shifts, factors = (offsets / offsets.new_tensor(scale)).split(2, dim=1)
    new_centres = centres + shifts * sizes
    new_sizes = sizes * factors.clamp(max=_LARGEST).exp()
    return torch.cat([new_centres - new_sizes / 2, new_centres + new_sizes / 2], 1)


def clipped(boxes: Boxes, height: int, width: int) -> Float[Tensor, "n 4"]:
    """The boxes cut to a picture."""
    most = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), most)


def with_area(boxes: Boxes) -> Bool[Tensor, " n"]:
    """Which boxes have an area, and finite sides."""
    wide_and_high = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return wide_and_high & boxes.isfinite().all(1)


def areas(boxes: Boxes) -> Float[Tensor, " n"]:
    """Width times height."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def matched(
    objects: Float[Tensor, "objects 4"],
    boxes: Boxes,
    background_below: float,
    object_from: float,
    best_too: bool = False,
) -> Int[Tensor, " n"]:
    """The object that each box overlaps most (intersection over union), `BACKGROUND`, or `IGNORED` in between.

    With `best_too`, the boxes that overlap an object most of all are matched, however little that is.
    """
    if len(objects) == 0:
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    from torchvision.ops import box_iou

    overlaps = box_iou(objects, boxes)
    highest, match = overlaps.max(0)
    found = match.clone()
    found[highest < object_from] = IGNORED
    found[highest < background_below] = BACKGROUND
    if best_too:
        best = overlaps.amax(1, keepdim=True)
        chosen = ((overlaps == best) & (best > 0)).any(0)
        found[chosen] = match[chosen]
    return found


class Sample(NamedTuple):
    """Numbers of the boxes that a loss is computed on."""

    objects: Int[Tensor, " p"]
    background: Int[Tensor, " q"]


def sampled(match: Int[Tensor, " n"], count: int, share: float, random: torch.Generator) -> Sample:
    """At most `count` random boxes, of which at most a share are matched; the others are background.

    `match` is that of `matched`; the generator is on its device.
    """
    objects, background = (match >= 0).nonzero()[:, 0], (match == BACKGROUND).nonzero()[:, 0]
    first = _chosen(objects, int(count * share), random)
    return Sample(first, _chosen(background, count - len(first), random))


def _chosen(numbers: Int[Tensor, " n"], most: int, random: torch.Generator) -> Int[Tensor, " m"]:
    order = torch.randperm(len(numbers), generator=random, device=numbers.device)
    return numbers[order[:most]]


def _centres(boxes: Boxes) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Centre and size of each box, (x, y) and (width, height)."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + sizes / 2, sizes
