"""A grid of pictures with captions, as one image."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageColor, ImageDraw, PngImagePlugin
from torch import Tensor

from unmask.own_output import MARK
from unmask.pictures.text import drawable, font_for

_GAP = 8  # pixels, as all sizes here
_TEXT = 14
_CELL = 256
_TOLERANCE = 1.5  # a picture whose longer side is at most this factor from a cell's keeps its size
TEXT_COLOR = "#222222"
HIDDEN_COLOR = "#9db2d0"
"""Of hidden patches: a blue that few pictures have, since grey may be a level of the picture."""
_BACKGROUND = "#ffffff"
BETTER, WORSE = "#00735a", "#b84000"
"""Green and red that readers with red-green blindness can tell apart: the hues of Okabe and Ito, darker for text on white."""


class Inked(NamedTuple):
    """A part of a caption in a colour."""

    text: str
    color: str = TEXT_COLOR


class Row(NamedTuple):
    """Pictures side by side, [c h w] from 0 to 1, and a caption below them."""

    pictures: list[Float[Tensor, "c h w"]]
    caption: str | Sequence[Inked]


def sheet(
    headings: list[str], rows: list[Row], notes: list[str], *, shrinks: bool = False
) -> Image.Image:
    """Rows of pictures under headings, each of at least about 256 pixels on its longer side; all keep their proportions.

    With `shrinks`, larger ones are made smaller, for pictures of which no detail matters.
    """
    captions = [_drawable_parts(row.caption) for row in rows]
    notes = list(map(drawable, notes))
    texts = ["".join(part.text for part in parts) for parts in captions] + notes
    font = font_for(texts, _TEXT)
    images = [[to_image(picture, shrinks=shrinks) for picture in row.pictures] for row in rows]

    # sizes
    columns = len(headings)
    widths = [
        max([int(font.getlength(headings[c])), *(row[c].width for row in images)])
        for c in range(columns)
    ]
    line = _TEXT + 6
    width = sum(widths) + _GAP * (columns + 1)
    longest = max(font.getlength(text) for text in [*texts, ""])
    width = max(width, int(longest) + 2 * _GAP)
    height = line + sum(max(image.height for image in row) + line + _GAP for row in images)

    # headings, rows, notes
    page = Image.new("RGB", (width, height + line * len(notes) + 2 * _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    lefts = [_GAP + sum(widths[:c]) + _GAP * c for c in range(columns)]
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, _GAP), heading, TEXT_COLOR, font)
    top = _GAP + line
    for parts, row_images in zip(captions, images, strict=True):
        for left, image in zip(lefts, row_images, strict=True):
            page.paste(image, (left, top))
        top += max(image.height for image in row_images) + 2
        left = float(_GAP)
        for part in parts:
            draw.text((left, top), part.text, part.color, font)
            left += font.getlength(part.text)
        top += line + _GAP - 2
    for note in notes:
        draw.text((_GAP, top), note, TEXT_COLOR, font)
        top += line
    return page


def _drawable_parts(caption: str | Sequence[Inked]) -> list[Inked]:
    parts = [Inked(caption)] if isinstance(caption, str) else caption
    return [part._replace(text=drawable(part.text)) for part in parts]


def save_sheet(page: Image.Image, path: Path) -> None:
    """Write a sheet; a PNG says that unmask drew it. Raises ValueError if the ending is not that of a picture."""
    text = PngImagePlugin.PngInfo()
    for field, value in MARK.items():
        text.add_text(field, value)
    page.save(path, pnginfo=text)  # formats other than PNG ignore it


def to_image(picture: Float[Tensor, "c h w"], *, shrinks: bool) -> Image.Image:
    """`to_rgb`, with a longer side near 256 pixels.

    Small pictures are enlarged by a whole factor without interpolation; those above 384 pixels are made smaller if that is
    asked for.
    """
    image = to_rgb(picture)
    longer = max(image.size)
    if shrinks and longer > _TOLERANCE * _CELL:
        image.thumbnail((_CELL, _CELL))
        return image
    factor = max(1, round(_CELL / longer))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def to_rgb(picture: Float[Tensor, "c h w"]) -> Image.Image:
    """An image of the first three channels, or of the first one in grey; a pixel that is NaN in any of them is white."""
    picture = _first_channels(picture)
    missing = picture.isnan().any(0)
    levels = picture.clamp(0, 1).masked_fill(missing, 1.0).mul(255).round().to(torch.uint8).cpu()
    levels = levels.expand(3, -1, -1)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def with_hidden(
    picture: Float[Tensor, "c h w"], hidden: Bool[Tensor, "h w"]
) -> Float[Tensor, "3 h w"]:
    """The picture as `to_rgb` shows it, with `HIDDEN_COLOR` where pixels are hidden."""
    color = torch.tensor(ImageColor.getrgb(HIDDEN_COLOR)).to(picture) / 255
    return torch.where(hidden, color[:, None, None], _first_channels(picture).expand(3, -1, -1))


def _first_channels(picture: Float[Tensor, "c h w"]) -> Float[Tensor, "shown h w"]:
    return picture[:3] if len(picture) >= 3 else picture[:1]


def enlarged(image: Image.Image, smallest_side: int) -> Image.Image:
    """The image, enlarged by a whole factor without interpolation, so that no side is shorter than this."""
    factor = -(-smallest_side // min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
