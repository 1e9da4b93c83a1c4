"""Grids of pictures with captions, as one image."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP = 8
_TEXT = 14
_LEAST_SIDE = 128
_INK, _PAPER = "#222222", "#ffffff"


class Row(NamedTuple):
    """Pictures beside one another, [c h w] between 0 and 1, and a line below them."""

    pictures: list[Float[Tensor, "c h w"]]
    caption: str


def sheet(headings: list[str], rows: list[Row], notes: list[str]) -> Image.Image:
    """Rows of pictures under headings; every picture keeps its proportions, small ones are enlarged."""
    font = ImageFont.load_default(_TEXT)
    drawn = [[to_image(picture) for picture in row.pictures] for row in rows]
    columns = len(headings)
    widths = [
        max([int(font.getlength(headings[c])), *(row[c].width for row in drawn)])
        for c in range(columns)
    ]
    line = _TEXT + 6
    width = sum(widths) + _GAP * (columns + 1)
    longest = max(font.getlength(text) for text in [*(row.caption for row in rows), *notes, ""])
    width = max(width, int(longest) + 2 * _GAP)
    height = line + sum(max(p.height for p in row) + line + _GAP for row in drawn)
    page = Image.new("RGB", (width, height + line * len(notes) + 2 * _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    lefts = [_GAP + sum(widths[:c]) + _GAP * c for c in range(columns)]
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, _GAP), heading, _INK, font)
    top = _GAP + line
    for row, pictures in zip(rows, drawn, strict=True):
        for left, picture in zip(lefts, pictures, strict=True):
            page.paste(picture, (left, top))
        top += max(picture.height for picture in pictures) + 2
        draw.text((_GAP, top), row.caption, _INK, font)
        top += line + _GAP - 2
    for note in notes:
        draw.text((_GAP, top), note, _INK, font)
        top += line
    return page


def to_image(picture: Float[Tensor, "c h w"]) -> Image.Image:
    """A picture of the first three channels, or of the first as grey; NaN in one of them is white, pixels of small ones become squares."""
    picture = picture[:3] if len(picture) >= 3 else picture[:1]
    missing = picture.isnan().any(0)
    levels = picture.clamp(0, 1).masked_fill(missing, 1.0).mul(255).round().to(torch.uint8).cpu()
    levels = levels.expand(3, -1, -1)
    image = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
    times = -(-_LEAST_SIDE // min(image.size))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
