"""The picture of a field: scores and marks lie where they belong on the map."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from unmask.pictures.score_field import Panel, draw_fields

SIZE = (240, 160)
"""Width and height of the map."""

GREEN = torch.tensor([0.0, 1, 0])[:, None, None].expand(3, 16, 24)


def where(pixels: NDArray[np.uint8], shown: NDArray[np.bool_]) -> tuple[float, float]:
    """The middle of some pixels of the picture, in pixels of the map, whose frame is that of the green ones."""
    rows, columns = np.nonzero(
        (pixels[..., 1] > 200) & (pixels[..., 0] < 50) & (pixels[..., 2] < 50)
    )
    y, x = (axis.mean() + 0.5 for axis in np.nonzero(shown))
    across, down = columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()
    return (x - columns.min()) / across * SIZE[0], (y - rows.min()) / down * SIZE[1]


def drawn(panel: Panel, path: Path) -> NDArray[np.uint8]:
    draw_fields(GREEN, SIZE, [panel], path)
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_peak_lies_on_its_tile(tmp_path: Path) -> None:
    """Tiles begin and step unlike pixels of the map; where there is none, nothing is drawn."""
    scores = np.zeros((6, 9), np.float32)
    scores[0, 0], scores[4, 6] = -np.inf, 1.0
    pixels = drawn(Panel("", scores, (30.0, 20.0), (22.0, 25.0), []), tmp_path / "a.png")
    bright = (pixels[..., 0] > 150) & (pixels[..., 1] > 150) & (pixels[..., 2] < 200)
    assert where(pixels, bright) == pytest.approx((30 + 6 * 22, 20 + 4 * 25), abs=1.5)


def test_marks_lie_on_their_places(tmp_path: Path) -> None:
    panel = Panel("", np.zeros((6, 9), np.float32), (30.0, 20.0), (22.0, 25.0), [(171.0, 45.0)])
    pixels = drawn(panel, tmp_path / "a.png").astype(int)
    blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 60)
    assert where(pixels.astype(np.uint8), blue) == pytest.approx((171, 45), abs=1.5)
