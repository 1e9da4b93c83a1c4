"""A grid of pictures, each with words below it: what a query finds, or which pictures are alike."""

from typing import NamedTuple

from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from unmask.pictures.sheet import enlarged, to_rgb
from unmask.pictures.text import drawable, font_for

_GAP, _TEXT, _SIDE = 8, 12, 128  # pixels
_LINE = _TEXT + 4
_COLOR, _BACKGROUND, _MARKED = "#222222", "#ffffff", "#c0392b"


class Tile(NamedTuple):
    """A picture with up to two lines below it."""

    picture: Float[Tensor, "c h w"]
    lines: tuple[str, ...]
    marked: bool = False
    """Whether it has a frame."""


def grid(rows: list[list[Tile]], heading: str) -> Image.Image:
    """Tiles in rows; every picture keeps its proportions, and text is cut to the width of its tile."""
    images = [[_fitted(to_rgb(tile.picture)) for tile in row] for row in rows]
    width = max(image.width for row in images for image in row)
    font = font_for([drawable(line) for row in rows for tile in row for line in tile.lines], _TEXT)
    most = max(len(tile.lines) for row in rows for tile in row)
    height = max(image.height for row in images for image in row) + most * _LINE + _GAP
    columns = max(map(len, rows))
    left = font_for([drawable(heading)], _TEXT)
    page_width = max(
        columns * (width + _GAP) + _GAP, int(left.getlength(drawable(heading))) + 2 * _GAP
    )
    page = Image.new("RGB", (page_width, _LINE + 2 * _GAP + len(rows) * height), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, _GAP), drawable(heading), _COLOR, left)
    for number, (row, row_images) in enumerate(zip(rows, images, strict=True)):
        top = _LINE + 2 * _GAP + number * height
        for column, (tile, image) in enumerate(zip(row, row_images, strict=True)):
            place = _GAP + column * (width + _GAP)
            page.paste(image, (place, top))
            if tile.marked:
                box = (place - 2, top - 2, place + image.width + 1, top + image.height + 1)
                draw.rectangle(box, outline=_MARKED, width=2)
            for line, text in enumerate(tile.lines):
                below = top + image.height + 2 + line * _LINE
                draw.text((place, below), _cut(drawable(text), font, width), _COLOR, font)
    return page


def _fitted(image: Image.Image) -> Image.Image:
    """The picture, enlarged if it is small, with a longer side of at most that of a tile."""
    image = enlarged(image, _SIDE)
    scale = _SIDE / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _cut(text: str, font: object, width: int) -> str:
    """The end of a text that fits, because names differ at their end."""
    length = font.getlength  # pyright: ignore[reportAttributeAccessIssue]
    if length(text) <= width:
        return text
    while text and length(f"...{text}") > width:
        text = text[1:]
    return f"...{text}"
