"""What a module of a dense task locates in single pictures, whole or in tiles."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.annotations import ClassMaps
from unmask.contracts import Size
from unmask.cutouts import Cutouts, cutout
from unmask.runs.finetune import Tuned
from unmask.tasks.detections import Detections
from unmask.tasks.joined import Tile, joined
from unmask.tasks.sliding import corners
from unmask.traits import Locating

_OVERLAP = 0.25  # share of a tile's side that the next one shows too
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

    With `tiles`, the picture is looked at in its own resolution, in overlapping windows of the recipe's image size, and masks
    are `Cutouts`; else it is resized as in testing.
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
    """Objects of overlapping tiles, each once; see `joined`."""
    height, width = picture.shape[-2:]
    side = tuned.job.recipe.image_size
    size = Size(min(side.height, height), min(side.width, width))
    step = Size(*(max(1, round(length * (1 - _OVERLAP))) for length in size))
    places = corners(Size(height, width), size, step)
    return joined([_tile(tuned, picture, size, place) for place in places])


def _tile(tuned: Tuned, picture: Tensor, size: Size, place: tuple[int, int]) -> Tile:
    """What is found in a tile with this top and left."""
    top, left = place
    height, width = picture.shape[-2:]
    view = picture[:, top : top + size.height, left : left + size.width]
    found: Detections = _located(tuned, view, view.shape[-2:])
    extent = torch.tensor([left, top, left + size.width, top + size.height]).float()
    boxes = found.boxes + extent[:2].repeat(2)
    may_go_on = torch.tensor([left > 0, top > 0, extent[2] < width, extent[3] < height])
    is_cut = ((boxes - extent).abs() <= _EDGE) & may_go_on
    masks = None
    if isinstance(found.masks, Tensor):
        pairs = zip(found.masks, found.boxes.tolist(), strict=True)
        cut = [cutout(mask, box, place) for mask, box in pairs]
        masks = Cutouts(
            places=tuple(at for at, _ in cut),
            parts=tuple(part for _, part in cut),
            size=(height, width),
        )
    return Tile(extent, found._replace(boxes=boxes, masks=masks), is_cut.any(1))
