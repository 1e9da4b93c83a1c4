"""Sheets: proportions, levels and places of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from reference.problems import random

from unmask.pictures.sheet import Row, sheet, to_image


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (20, 30), (30, 20), (128, 512), (300, 200), (1, 7)], ids=str
)
def test_every_picture_keeps_its_proportions(height: int, width: int) -> None:
    picture = to_image(torch.rand(3, height, width, generator=random(0)))
    assert picture.width * height == picture.height * width
    assert min(picture.size) >= 128


def test_small_pictures_grow_in_whole_squares() -> None:
    pixels = torch.rand(3, 4, 6, generator=random(0))
    drawn = np.asarray(to_image(pixels))
    times = drawn.shape[0] // 4
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(drawn, levels.repeat(times, 0).repeat(times, 1))


def test_large_pictures_are_left_alone() -> None:
    pixels = torch.rand(3, 150, 200, generator=random(0))
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(to_image(pixels)), levels)


def test_grey_becomes_rgb_and_levels_are_clipped() -> None:
    drawn = np.asarray(to_image(torch.tensor([[[-1.0, 0.5], [1.0, 7.0]]])))
    corners = drawn[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [[0] * 3, [128] * 3, [255] * 3, [255] * 3]


def test_channels_past_the_third_are_left_out() -> None:
    pixels = torch.rand(5, 128, 128, generator=random(0))
    assert np.array_equal(np.asarray(to_image(pixels)), np.asarray(to_image(pixels[:3])))


def find(page: Image.Image, picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int]:
    """Upper left corner of a picture of one colour, which must be whole."""
    found = (np.asarray(page) == colour).all(-1)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert (len(columns), len(rows)) == picture.size
    assert found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return int(columns[0]), int(rows[0])


def test_rows_and_columns() -> None:
    colours = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]
    shapes = [(130, 260), (200, 150)]
    pictures = [
        [torch.tensor(colour)[:, None, None].expand(3, *shape) / 255 for colour in row]
        for row, shape in zip(colours, shapes, strict=True)
    ]
    rows = [Row(row, f"row {number}") for number, row in enumerate(pictures)]
    page = sheet(["left", "right"], rows, ["a note", "another"])
    places = [
        [find(page, to_image(picture), colour) for picture, colour in zip(row, line, strict=True)]
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
