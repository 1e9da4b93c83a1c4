"""Sheets: proportions, levels and places of pictures."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor
from reference.problems import random

from unmask.pictures.sheet import BETTER, WORSE, Inked, Row, sheet, to_image


@pytest.mark.parametrize(
    ("height", "width"),
    [(8, 8), (32, 32), (20, 30), (30, 20), (224, 224), (128, 512), (300, 200), (1000, 750), (1, 7)],
    ids=str,
)
def test_every_picture_keeps_its_proportions_near_the_size_of_a_cell(
    height: int, width: int
) -> None:
    picture = to_image(torch.rand(3, height, width, generator=random(0)), shrinks=True)
    assert picture.width * height == picture.height * width
    assert 171 <= max(picture.size) <= 384  # 256 times or by 1.5


@pytest.mark.parametrize("side", [8, 16, 32])
def test_digits_and_small_pictures_fill_a_cell(side: int) -> None:
    assert to_image(torch.zeros(1, side, side), shrinks=True).size == (256, 256)


def test_small_pictures_grow_in_whole_squares() -> None:
    pixels = torch.rand(3, 4, 6, generator=random(0))
    drawn = np.asarray(to_image(pixels, shrinks=True))
    times = drawn.shape[0] // 4
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(drawn, levels.repeat(times, 0).repeat(times, 1))


def test_pictures_of_about_that_size_are_left_alone() -> None:
    pixels = torch.rand(3, 280, 380, generator=random(0))
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(to_image(pixels, shrinks=True)), levels)


def test_large_pictures_keep_their_details_unless_asked() -> None:
    """Small defects and small objects are looked for in sheets of `odd` and of detection."""
    pixels = torch.rand(3, 448, 512, generator=random(0))
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(to_image(pixels, shrinks=False)), levels)
    assert to_image(pixels, shrinks=True).size == (256, 224)


def test_grey_becomes_rgb_and_levels_are_clipped() -> None:
    drawn = np.asarray(to_image(torch.tensor([[[-1.0, 0.5], [1.0, 7.0]]]), shrinks=True))
    corners = drawn[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [[0] * 3, [128] * 3, [255] * 3, [255] * 3]


def test_channels_past_the_third_are_left_out() -> None:
    pixels = torch.rand(5, 180, 180, generator=random(0))
    assert np.array_equal(
        np.asarray(to_image(pixels, shrinks=True)), np.asarray(to_image(pixels[:3], shrinks=True))
    )


def find(page: Image.Image, picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int]:
    """Upper left corner of a picture of one colour, which must be whole."""
    found = (np.asarray(page) == colour).all(-1)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert (len(columns), len(rows)) == picture.size
    assert found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return int(columns[0]), int(rows[0])


def test_rows_and_columns() -> None:
    colours = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]
    shapes = [(130, 260), (200, 150)]  # pixels, and about the size of a cell
    pictures = [
        [torch.tensor(colour)[:, None, None].expand(3, *shape) / 255 for colour in row]
        for row, shape in zip(colours, shapes, strict=True)
    ]
    rows = [Row(row, f"row {number}") for number, row in enumerate(pictures)]
    page = sheet(["left", "right"], rows, ["a note", "another"])
    places = [
        [
            find(page, to_image(picture, shrinks=False), colour)
            for picture, colour in zip(row, line, strict=True)
        ]
        for row, line in zip(pictures, colours, strict=True)
    ]
    assert places[0][0][0] == places[1][0][0] < places[0][1][0] == places[1][1][0]
    assert places[0][0][1] == places[0][1][1] < places[1][0][1] == places[1][1][1]
    assert page.height > places[1][0][1] + 200


def test_long_captions_fit() -> None:
    picture = torch.zeros(1, 8, 8)
    caption = "a caption far longer than the picture is wide, " * 4
    narrow, wide = (sheet(["a"], [Row([picture], text)], []) for text in ("", caption))
    assert wide.width > narrow.width
    ink = (np.asarray(wide) != 255).any(-1).any(0)
    assert not ink[-8:].any()  # nothing is cut off at the edge


@pytest.mark.parametrize("pictures", [1, 3])
def test_headings_and_pictures_must_agree(pictures: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        sheet(["a", "b"], [Row([torch.zeros(3, 8, 8)] * pictures, "")], [])


DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
"""Machado, Oliveira and Fernandes (2009), table 1, severity 1.0, for linear sRGB."""

PROTANOPIA = np.array(
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
)
"""The same."""


def linear(color: str) -> NDArray[np.float64]:
    """Linear red, green and blue of an sRGB colour (IEC 61966-2-1)."""
    shares = np.array(ImageColor.getrgb(color)) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("color", [BETTER, WORSE])
def test_coloured_text_can_be_read_on_white(color: str) -> None:
    luminance = linear(color) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 4.5  # WCAG 2, AA


@pytest.mark.parametrize("eye", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=str)
def test_red_and_green_differ_for_every_eye(eye: NDArray[np.float64]) -> None:
    """In one channel by 60 levels of 255, as pure red and the green of the same lightness do not."""
    assert levels_apart(BETTER, WORSE, eye) > 60


def test_the_measure_finds_a_pair_that_is_confused() -> None:
    assert (
        levels_apart("#a03030", "#506a30", DEUTERANOPIA)
        < 40
        < 60
        < levels_apart("#a03030", "#506a30", np.eye(3))
    )


def levels_apart(one: str, other: str, eye: NDArray[np.float64]) -> float:
    """The largest difference of two colours in a channel, as an eye sees them."""
    seen = [(eye @ linear(color)).clip(0, 1) for color in (one, other)]
    levels = [
        255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055) for v in seen
    ]
    return float(np.abs(levels[0] - levels[1]).max())


def test_parts_of_a_caption_have_their_colours_side_by_side() -> None:
    picture = torch.ones(1, 8, 8)
    parts = [Inked("before "), Inked("middle", BETTER), Inked(" after")]
    plain, colored = (
        np.asarray(sheet(["a"], [Row([picture], caption)], [])).astype(int)
        for caption in ("before middle after", parts)
    )
    assert plain.shape == colored.shape
    assert np.array_equal((plain < 128).any(-1).any(0), (colored < 128).any(-1).any(0))
    ink = (colored == ImageColor.getrgb(BETTER)).all(-1).any(0)
    dark = (colored == (0x22, 0x22, 0x22)).all(-1).any(0)
    first, last = np.flatnonzero(ink)[[0, -1]]
    assert dark[:first].any()
    assert dark[last + 1 :].any()
