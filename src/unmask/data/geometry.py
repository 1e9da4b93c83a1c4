"""Where a view lies in its image, and how pixels, class maps and boxes are moved there together."""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from unmask.annotations import Annotation, Objects
from unmask.contracts import Size

_BICUBIC = v2.InterpolationMode.BICUBIC
_NEAREST = v2.InterpolationMode.NEAREST_EXACT  # plain NEAREST is off by half a pixel
_MOST = 0.5


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
    """How a view is made of an image: a part is resized, a window is cut from that, and may be mirrored."""

    part: Box
    """What is taken of the original image."""
    resized: Size
    """Pixels that the part is resized to."""
    window: Box
    """What is cut from the resized part: the view."""
    mirrored: bool
    """Whether left and right change places."""


@runtime_checkable
class Placing(Protocol):
    """Views that can say where they lie in an image, so that annotations of pixels can move along.

    One that moves pixels in other ways, or gives several views, does not offer it.
    """

    def geometry(self, whole: Size, size: Size, *key: int) -> Geometry:
        """Where the view of `size` pixels lies in an image of `whole` pixels; the key alone decides."""
        ...


def whole_of(size: Size) -> Box:
    """The box of all pixels."""
    return Box(0, 0, *size)


def view_of_part(part: Box, size: Size, mirrored: bool = False) -> Geometry:
    """A part of an image, resized to the view."""
    return Geometry(part, size, whole_of(size), mirrored)


def covering(whole: Size, size: Size) -> Size:
    """An image's size in its proportions, when it just covers `size`."""
    scale = max(size.height / whole.height, size.width / whole.width)
    return Size(
        max(size.height, round(whole.height * scale)), max(size.width, round(whole.width * scale))
    )


def middle(resized: Size, size: Size) -> Box:
    """The box of `size` in the middle of a larger one; torchvision's rule of rounding."""
    top, left = (round((a - b) / 2) for a, b in zip(resized, size, strict=True))
    return Box(top, left, *size)


def moved_pixels(
    image: Shaped[Tensor, "c h w"], geometry: Geometry
) -> Shaped[Tensor, "c new_h new_w"]:
    """The view of an image, resized as `resize` does."""
    resized = resize(_cut(image, geometry.part), geometry.resized)
    return _flipped(_cut(resized, geometry.window), geometry)


def moved_map(map_: Int[Tensor, "h w"], geometry: Geometry) -> Int[Tensor, "new_h new_w"]:
    """The class of each pixel of the view: that of the nearest pixel of the image."""
    return _nearest(map_[None], geometry)[0]


def moved_objects(objects: Objects, whole: Size, geometry: Geometry) -> Objects:
    """The objects of an image in its view, boxes clipped to the view.

    Those of which nothing remains are left out: no pixel of the mask where masks are known, else no area of the box.
    """
    boxes = F.crop(_as_boxes(objects.boxes, whole), *geometry.part)
    boxes = F.resize(boxes, list(geometry.resized))
    boxes = F.crop(boxes, *geometry.window)
    boxes = F.horizontal_flip(boxes) if geometry.mirrored else boxes
    boxes = F.clamp_bounding_boxes(boxes).as_subclass(Tensor)
    masks = None if objects.masks is None else _nearest(objects.masks, geometry)
    seen = _seen(boxes, masks)
    return Objects(boxes[seen], objects.classes[seen], None if masks is None else masks[seen])


def moved(annotation: Annotation, whole: Size, geometry: Geometry) -> Annotation:
    """A class map, or objects, of an image of `whole` pixels in its view."""
    if isinstance(annotation, Objects):
        return moved_objects(annotation, whole, geometry)
    return None if annotation is None else moved_map(annotation, geometry)


def resize(image: Shaped[Tensor, "c h w"], size: Size) -> Shaped[Tensor, "c new_h new_w"]:
    """Bicubic, smoothed where it shrinks; a value is missing where most of what it is made of is."""
    if image.dtype == torch.uint8 or not bool((missing := image.isnan()).any()):
        return F.resize(image, list(size), _BICUBIC, antialias=True)
    weights = F.resize((~missing).to(image.dtype), list(size), _BICUBIC, antialias=True)
    values = F.resize(image.masked_fill(missing, 0.0), list(size), _BICUBIC, antialias=True)
    return torch.where(weights >= _MOST, values / weights, math.nan)


def _cut(image: Shaped[Tensor, "c h w"], box: Box) -> Shaped[Tensor, "c new_h new_w"]:
    return image[:, box.top : box.top + box.height, box.left : box.left + box.width]


def _flipped(image: Shaped[Tensor, "c h w"], geometry: Geometry) -> Shaped[Tensor, "c h w"]:
    return image.flip(-1) if geometry.mirrored else image


def _nearest(maps: Shaped[Tensor, "n h w"], geometry: Geometry) -> Shaped[Tensor, "n new_h new_w"]:
    """Maps moved without mixing their values."""
    if len(maps) == 0:  # torchvision cannot resize no maps
        return maps.new_zeros(0, *geometry.window.size)
    part = _cut(maps, geometry.part)
    numbers = part.to(torch.uint8) if part.dtype == torch.bool else part
    resized = F.resize(numbers, list(geometry.resized), _NEAREST).to(maps.dtype)
    return _flipped(_cut(resized, geometry.window), geometry)


def _as_boxes(boxes: Tensor, whole: Size) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue] - its stub lacks the keywords
        boxes.reshape(-1, 4),
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(whole.height, whole.width),
    )


def _seen(boxes: Tensor, masks: Bool[Tensor, "n h w"] | None) -> Bool[Tensor, "n"]:
    """Which objects are still there."""
    if masks is not None:
        return masks.flatten(1).any(1)
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
