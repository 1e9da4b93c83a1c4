"""What a module of a dense task locates in single pictures, whole or in tiles."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.annotations import ClassMaps
from unmask.contracts import Size
from unmask.runs.finetune import Tuned
from unmask.tasks.detections import Detections
from unmask.tasks.sliding import corners
from unmask.traits import Locating

_OVERLAP = 0.25  # share of a tile's side that the next one shows too
_SAME = 0.5  # intersection over union from which on two objects of a class are one
_EDGE = 2.0  # pixels; boxes that end so close to a cut of a tile are parts of objects


class ClassMap(NamedTuple):
    """The class of each pixel of a picture."""

    classes: Shaped[Tensor, "h w"]
    """int64, in the picture's own size."""
    names: tuple[str, ...]
    """The classes, in the order of their numbers."""


@torch.inference_mode()
def locate(tuned: Tuned, picture: Shaped[Tensor, "c h w"], tiles: bool = False) -> Any:
    """A class map [h w], or `Detections`, in the frame of a picture.

    With `tiles`, the picture is looked at in its own resolution, in overlapping windows of the recipe's image size; else it
    is resized as in testing.
    """
    assert isinstance(tuned.module, Locating)
    if tiles and not isinstance(tuned.job.annotations, ClassMaps):
        return _in_tiles(tuned, picture)
    if not tiles:  # class maps come from sliding windows already
        recipe = tuned.job.recipe
        (view,) = recipe.test_views(picture, recipe.image_size)
        return _located(tuned, view, picture.shape[-2:])
    return _located(tuned, picture, picture.shape[-2:])


def _located(tuned: Tuned, view: Tensor, whole: torch.Size) -> Any:
    assert isinstance(tuned.module, Locating)
    device = next(tuned.module.parameters()).device
    return tuned.module.locate(view[None].to(device), None, torch.tensor([list(whole)]))[0]


def _in_tiles(tuned: Tuned, picture: Shaped[Tensor, "c h w"]) -> Detections:
    """Objects of overlapping tiles, each once: parts of objects at the cut of a tile are left to the neighbour."""
    from torchvision.ops import batched_nms

    height, width = picture.shape[-2:]
    side = tuned.job.recipe.image_size
    size = Size(min(side.height, height), min(side.width, width))
    step = Size(*(max(1, round(length * (1 - _OVERLAP))) for length in size))
    parts = list(_tiles(tuned, picture, size, corners(Size(height, width), size, step)))
    boxes = torch.cat([part.boxes for part in parts])
    scores = torch.cat([part.scores for part in parts])
    classes = torch.cat([part.classes for part in parts])
    chosen = batched_nms(boxes, scores, classes, _SAME)
    masks = None
    if parts[0].masks is not None:
        masks = torch.cat([part.masks for part in parts if part.masks is not None])[chosen]
    return Detections(boxes[chosen], scores[chosen], classes[chosen], masks)


def _tiles(
    tuned: Tuned, picture: Tensor, size: Size, places: list[tuple[int, int]]
) -> Iterator[Detections]:
    height, width = picture.shape[-2:]
    for top, left in places:
        tile = picture[:, top : top + size.height, left : left + size.width]
        found: Detections = _located(tuned, tile, tile.shape[-2:])
        far = (left + size.width < width, top + size.height < height)
        whole = torch.ones(len(found.boxes), dtype=torch.bool)
        for axis, (start, end, is_cut) in enumerate(
            ((left, size.width, far[0]), (top, size.height, far[1]))
        ):
            if start > 0:
                whole &= found.boxes[:, axis] > _EDGE
            if is_cut:
                whole &= found.boxes[:, axis + 2] < end - _EDGE
        masks = None
        if found.masks is not None:
            masks = torch.zeros(int(whole.sum()), height, width, dtype=torch.bool)
            masks[:, top : top + size.height, left : left + size.width] = found.masks[whole]
        offset = torch.tensor([left, top, left, top])
        yield Detections(
            found.boxes[whole] + offset, found.scores[whole], found.classes[whole], masks
        )
