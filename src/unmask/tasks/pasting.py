"""Masks of regions, pasted into their pictures.

After Mask R-CNN (He and others, 2017) and detectron2 (Apache-2.0): each pixel takes the bilinear value of the region's mask
at the pixel's centre.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

_LEAST = 0.5  # value from which on a pixel belongs to the object


def pasted(
    masks: Float[Tensor, "n side side"], boxes: Float[Tensor, "n 4"], height: int, width: int
) -> Bool[Tensor, "n h w"]:
    """Which pixels of a picture of this size belong to each object.

    Masks hold probabilities and fill their boxes. Beyond its outermost cells a mask falls to 0 within half a cell.
    """
    whole = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for canvas, mask, box in zip(whole, masks.cpu().float(), boxes.cpu().float(), strict=True):
        left, top, right, bottom = box.tolist()
        # half a cell around the box may be 0.5 or more only within the box, so one pixel around it is enough
        rows = range(max(0, math.floor(top) - 1), min(height, math.ceil(bottom) + 1))
        columns = range(max(0, math.floor(left) - 1), min(width, math.ceil(right) + 1))
        if len(rows) and len(columns):
            y, x = _relative(rows, top, bottom), _relative(columns, left, right)
            places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
            values = F.grid_sample(mask[None, None], places, align_corners=False)[0, 0]
            canvas[rows.start : rows.stop, columns.start : columns.stop] = values >= _LEAST
    return whole


def _relative(pixels: range, start: float, end: float) -> Float[Tensor, " n"]:
    """The centres of pixels, where -1 is the start of the box and 1 its end."""
    centres = torch.arange(pixels.start, pixels.stop) + 0.5
    return (centres - start) / (end - start) * 2 - 1
