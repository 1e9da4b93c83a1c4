"""The geometry of a view in its image, applied to pixels, class maps and boxes alike."""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unmask.annotations import Annotation, Objects
from unmask.contracts import Size
from unmask.data.resizing import bicubic, nearest

_LONG = 32  # times the shown length, from which on only a part is resized
_LEAST_KNOWN = 0.5  # share of known values among the sources of a resized pixel; missing below it


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> Size:
        """Its height and width."""
        return Size(self.height, self.width)


class Geometry(NamedTuple):
    """How a view is made from an image: crop a part, resize it, crop a window, and possibly mirror it."""

    part: Box
    """The part of the original image."""
    resized: Size
    """Size that the part is resized to, in pixels."""
    window: Box
    """The window of the resized part that becomes the view."""
    mirrored: bool
    """Whether left and right are swapped."""


@runtime_checkable
class Placing(Protocol):
    """Views that know their geometry in the image, so that class maps and boxes can follow.

    Views that move pixels in other ways, or return several views, do not implement it.
    """

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """The geometry of a view of `size` pixels in an image of `whole` pixels; a function of the key."""
        ...


def view_of_part(part: Box, size: Size, mirrored: bool = False) -> Geometry:
    """The geometry of a part resized to the whole view."""
    return Geometry(part, size, Box(0, 0, *size), mirrored)


def one_view(
    self: Placing, image: Shaped[Tensor, "c h w"], size: Size, *key: int
) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
    """One view, with the geometry of this key: the `__call__` of views that only crop, resize and flip."""
    return (moved_pixels(image, self.geometry(Size(*image.shape[-2:]), size, *key)),)


def drawn_flip(probability: float, random: torch.Generator) -> bool:
    """Whether a view is mirrored."""
    return torch.rand((), generator=random).item() < probability


def covering(whole: Size, size: Size) -> Size:
    """The smallest size with the image's aspect ratio that covers `size`."""
    scale = max(size.height / whole.height, size.width / whole.width)
    return Size(
        max(size.height, round(whole.height * scale)), max(size.width, round(whole.width * scale))
    )


def trimmed(geometry: Geometry) -> Geometry:
    """The same view from less of the image, if resizing all of it would make far more pixels than the view shows.

    A picture of 1 x 600,000 pixels that covers a view of 32 x 32 would become 32 x 19,200,000. Ordinary pictures keep
    their geometry; of long ones, the view moves by less than a pixel.
    """
    part, resized, window = geometry.part, geometry.resized, geometry.window
    top, height, window_top = _trimmed(part.height, resized.height, window.top, window.height)
    left, width, window_left = _trimmed(part.width, resized.width, window.left, window.width)
    return Geometry(
        Box(part.top + top, part.left + left, height, width),
        Size(
            max(window_top + window.height, round(height * resized.height / part.height)),
            max(window_left + window.width, round(width * resized.width / part.width)),
        ),
        Box(window_top, window_left, window.height, window.width),
        geometry.mirrored,
    )


def _trimmed(part: int, resized: int, start: int, shown: int) -> tuple[int, int, int]:
    """Along one axis: the first pixel and the number of pixels of the part that the view needs, and where it starts."""
    if resized <= _LONG * shown:
        return 0, part, start
    scale = resized / part
    margin = math.ceil(2 * max(1, 1 / scale)) + 1  # what a bicubic filter reaches
    first = max(0, math.floor(start / scale) - margin)
    last = min(part, math.ceil((start + shown) / scale) + margin)
    return first, last - first, max(0, round(start - first * scale))


def middle(resized: Size, size: Size) -> Box:
    """The box of `size` in the centre of a larger one, rounded as in torchvision."""
    top, left = (round((a - b) / 2) for a, b in zip(resized, size, strict=True))
    return Box(top, left, *size)


def moved_pixels(
    image: Shaped[Tensor, "c h w"], geometry: Geometry
) -> Shaped[Tensor, "c new_h new_w"]:
    """The view of an image, resized by `resize`."""
    return _shown(resize(_cut(image, geometry.part), geometry.resized), geometry)


def moved_map(map_: Int[Tensor, "h w"], geometry: Geometry) -> Int[Tensor, "new_h new_w"]:
    """The class of each pixel of the view, from the nearest pixel of the image."""
    return _nearest(map_[None], geometry)[0]


def moved_objects(objects: Objects, whole: Size, geometry: Geometry) -> Objects:
    """The objects of an image in its view. Objects outside the view are removed.

    Where masks are known, boxes become those around what is left of the masks in the view, as in detectron2: a box that is
    only clipped may be larger than what can be seen. Else boxes are clipped, and those without area are removed.
    """
    if objects.masks is not None:
        masks = _nearest(objects.masks, geometry)
        seen = objects._replace(masks=masks).rows(masks.flatten(1).any(1))
        assert seen.masks is not None
        return seen._replace(boxes=boxes_around(seen.masks))
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional as F

    boxes: Tensor = tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue] - its stub lacks the keywords
        objects.boxes.reshape(-1, 4), format="XYXY", canvas_size=(whole.height, whole.width)
    )
    boxes = F.crop(boxes, *geometry.part)
    boxes = F.resize(boxes, list(geometry.resized))
    boxes = F.crop(boxes, *geometry.window)
    boxes = F.horizontal_flip(boxes) if geometry.mirrored else boxes
    boxes = F.clamp_bounding_boxes(boxes).as_subclass(Tensor)
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return objects._replace(boxes=boxes).rows(visible)


def boxes_around(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """The smallest box around each mask, which has at least one pixel; its sides lie between pixels."""
    ends: list[Tensor] = []
    for axis in (1, 2):  # whether any pixel of a column, then of a row, is set
        line = masks.any(axis).byte()
        ends += [line.argmax(1), line.shape[1] - line.flip(1).argmax(1)]
    left, right, top, bottom = ends
    return torch.stack([left, top, right, bottom], 1).float()


def moved(annotation: Annotation, whole: Size, geometry: Geometry) -> Annotation:
    """A class map or objects of an image of `whole` pixels, moved to its view."""
    if isinstance(annotation, Objects):
        return moved_objects(annotation, whole, geometry)
    return None if annotation is None else moved_map(annotation, geometry)


def resize(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """Bicubic with antialiasing; a value is missing if most of its source values are missing."""
    if image.dtype == torch.uint8 or not bool((missing := image.isnan()).any()):
        return bicubic(image, size)
    weights = bicubic((~missing).to(image.dtype), size)
    values = bicubic(image.masked_fill(missing, 0.0), size)
    return torch.where(weights >= _LEAST_KNOWN, values / weights, math.nan)


def _cut(image: Shaped[Tensor, "c h w"], box: Box) -> Shaped[Tensor, "c new_h new_w"]:
    return image[:, box.top : box.top + box.height, box.left : box.left + box.width]


def _shown(resized: Shaped[Tensor, "c h w"], geometry: Geometry) -> Shaped[Tensor, "c y x"]:
    """The view of a resized part."""
    window = _cut(resized, geometry.window)
    return window.flip(-1) if geometry.mirrored else window


def _nearest(maps: Shaped[Tensor, "n h w"], geometry: Geometry) -> Shaped[Tensor, "n new_h new_w"]:
    """Maps moved with nearest-neighbour interpolation, so that values are never mixed."""
    if len(maps) == 0:  # torch cannot resize zero maps
        return maps.new_zeros(0, *geometry.window.size)
    part = _cut(maps, geometry.part)
    numbers = part.to(torch.uint8) if part.dtype == torch.bool else part
    resized = nearest(numbers, geometry.resized).to(maps.dtype)
    return _shown(resized, geometry)
