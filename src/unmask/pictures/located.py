"""Pictures with what is located in them: class maps as colours, objects as boxes, outlines and names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from unmask.cutouts import Cutouts
from unmask.pictures.colors import Color, class_colors, text_color
from unmask.pictures.sheet import to_rgb
from unmask.pictures.text import drawable, font_for

_TEXT = 12  # pixels
_OPAQUE = 0.55  # share of a class's colour in a coloured pixel


def small_enough(
    picture: Float[Tensor, "c h w"], located: Any, largest: int
) -> tuple[Float[Tensor, "c new_h new_w"], Any]:
    """A picture for a sheet, with what is located in it: a class map, or objects; no side is longer than `largest`."""
    height, width = picture.shape[-2:]
    scale = largest / max(height, width)
    if scale >= 1:
        return picture, located
    from torchvision.transforms.v2 import functional as F

    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    picture = F.resize(picture, size, antialias=True)
    if isinstance(located, Tensor):
        return picture, _nearest(located[None], size)[0]
    masks = located.masks
    if isinstance(masks, Cutouts):
        masks = masks.resized((size[0], size[1]))
    elif masks is not None:
        masks = _nearest(masks.byte(), size).bool()
    factors = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
    return picture, located._replace(boxes=located.boxes * factors, masks=masks)


def _nearest(maps: Tensor, size: list[int]) -> Tensor:
    if len(maps) == 0:  # torchvision cannot resize zero maps
        return maps.new_zeros(0, *size)
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    return F.resize(maps, size, InterpolationMode.NEAREST_EXACT)


def with_map(
    picture: Float[Tensor, "c h w"], classes: Int[Tensor, "h w"], count: int
) -> Float[Tensor, "3 h w"]:
    """The picture, 0 to 1, under the colours of its classes; pixels of other numbers, such as ignored ones, stay as they are."""
    colors = torch.tensor(class_colors(count)) / 255
    rgb = _rgb(picture) / 255
    known = (classes >= 0) & (classes < count)
    painted = colors[classes.clamp(0, count - 1)].permute(2, 0, 1)
    return torch.where(known, _OPAQUE * painted + (1 - _OPAQUE) * rgb, rgb)


def with_objects(
    picture: Float[Tensor, "c h w"], objects: Any, names: Sequence[str], least: float = 0.0
) -> Float[Tensor, "3 h w"]:
    """The picture, 0 to 1, with its objects: masks in the colour of their class, boxes, and names.

    Args:
        picture: the picture.
        objects: `Objects`, or `Detections`, which have scores.
        names: of the classes.
        least: objects with a lower score are left out.
    """
    scores: Tensor | None = getattr(objects, "scores", None)
    shown = list(range(len(objects.boxes)))
    if scores is not None:
        shown = [row for row in reversed(shown) if float(scores[row]) >= least]  # the surest on top
    colors, rgb = class_colors(len(names)), _rgb(picture)
    if objects.masks is not None and shown:
        tinted = rgb.clone()
        for row in shown:  # where masks overlap, the surest gives the colour
            tint = torch.tensor(colors[int(objects.classes[row])], dtype=torch.uint8)
            tinted[:, objects.masks[row].bool()] = tint[:, None]
        rgb = torch.lerp(rgb.float(), tinted.float(), _OPAQUE).round().byte()
    image = Image.fromarray(rgb.permute(1, 2, 0).numpy())
    draw = ImageDraw.Draw(image)
    for row in shown:
        number = int(objects.classes[row])
        score = "" if scores is None else f" {float(scores[row]):.0%}"
        _labelled_box(draw, objects.boxes[row].tolist(), names[number] + score, colors[number])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def with_legend(page: Image.Image, names: Sequence[str]) -> Image.Image:
    """The page with the colour and the name of each class below it."""
    font = font_for(list(map(drawable, names)), _TEXT)
    line, side = _TEXT + 10, _TEXT
    places: list[tuple[int, int]] = []
    left, top = 8, 4
    for name in names:
        needed = side + 6 + int(font.getlength(drawable(name))) + 16
        if left > 8 and left + needed > page.width:
            left, top = 8, top + line
        places.append((left, top))
        left += needed
    larger = Image.new("RGB", (page.width, page.height + top + line + 4), "white")
    larger.paste(page, (0, 0))
    draw = ImageDraw.Draw(larger)
    for name, color, (x, y) in zip(names, class_colors(len(names)), places, strict=True):
        y += page.height
        draw.rectangle((x, y, x + side, y + side), fill=color, outline="#222222")
        draw.text((x + side + 6, y - 1), drawable(name), "#222222", font)
    return larger


def _labelled_box(draw: ImageDraw.ImageDraw, box: list[float], text: str, color: Color) -> None:
    """A box with its text above it, or below its upper edge where there is no room."""
    left, top, right, bottom = (round(side) for side in box)
    draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=2)
    text = drawable(text)
    font = font_for([text], _TEXT)
    above = top - _TEXT - 3
    place = (left + 1, above if above >= 0 else top + 1)
    draw.rectangle(draw.textbbox(place, text, font), fill=color)
    draw.text(place, text, text_color(color), font)


def _rgb(picture: Float[Tensor, "c h w"]) -> Tensor:
    """The first three channels, or the first in grey, as uint8 [3 h w]."""
    return torch.from_numpy(np.array(to_rgb(picture))).permute(2, 0, 1).contiguous()
