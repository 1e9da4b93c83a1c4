"""Sliding windows: what they cover, what they add up to, and how scores are resized."""

import math

import pytest
import torch
from reference.problems import random
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.tasks import sliding
from unmask.tasks.canvas import on_canvas
from unmask.tasks.sliding import class_map, corners, sliding_scores

WINDOW, STRIDE = Size(6, 8), Size(4, 5)


def position_scores(windows: Tensor) -> Tensor:
    """Two classes: the pixel's value, and a number that depends on its place in the window."""
    places = torch.arange(windows[0, 0].numel()).view(windows.shape[-2:]).float()
    values = windows[:, 0].float()
    return torch.stack([values, places.expand_as(values)], 1)


def mmseg_corners(size: Size) -> list[tuple[int, int]]:
    """As written in mmsegmentation's `slide_inference` (Apache-2.0)."""
    (h_img, w_img), (h_crop, w_crop), (h_stride, w_stride) = size, WINDOW, STRIDE
    h_grids = max(h_img - h_crop + h_stride - 1, 0) // h_stride + 1
    w_grids = max(w_img - w_crop + w_stride - 1, 0) // w_stride + 1
    found = []
    for h_idx in range(h_grids):
        for w_idx in range(w_grids):
            y2, x2 = min(h_idx * h_stride + h_crop, h_img), min(w_idx * w_stride + w_crop, w_img)
            found.append((max(y2 - h_crop, 0), max(x2 - w_crop, 0)))
    return found


@pytest.mark.parametrize("height", [3, 6, 7, 10, 11, 23])
@pytest.mark.parametrize("width", [2, 8, 9, 13, 14, 40])
def test_windows_are_those_of_mmsegmentation_and_cover_every_pixel(height: int, width: int) -> None:
    size = Size(height, width)
    places = corners(size, WINDOW, STRIDE)
    assert places == mmseg_corners(size)
    covered = torch.zeros(height, width)
    for top, left in places:
        covered[top : top + 6, left : left + 8] += 1
    assert covered.min() >= 1


def test_one_window_is_the_plain_pass() -> None:
    picture = torch.randint(256, (3, *WINDOW), generator=random(0), dtype=torch.uint8)
    seen: list[Tensor] = []

    def score(windows: Tensor) -> Tensor:
        seen.append(windows)
        return position_scores(windows)

    found = sliding_scores(score, picture, WINDOW, STRIDE, 4)
    assert torch.equal(found, position_scores(picture[None])[0])
    assert torch.equal(seen[0], picture[None])
    assert seen[0].dtype == torch.uint8


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_pixels_in_several_windows_get_the_mean(at_once: int) -> None:
    """Against a loop over pixels and windows."""
    picture = torch.randn(1, 11, 19, generator=random(1))
    found = sliding_scores(position_scores, picture, WINDOW, STRIDE, at_once)
    assert found.dtype == torch.float32
    assert torch.equal(found[0], picture[0]) or torch.allclose(found[0], picture[0], atol=1e-6)
    for row in range(11):
        for column in range(19):
            inside = [
                (row - top) * 8 + column - left
                for top, left in mmseg_corners(Size(11, 19))
                if 0 <= row - top < 6 and 0 <= column - left < 8
            ]
            assert found[1, row, column].item() == pytest.approx(sum(inside) / len(inside))


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_windows_at_once_than_asked(at_once: int) -> None:
    def score(windows: Tensor) -> Tensor:
        assert windows.shape[1:] == (1, *WINDOW)
        assert len(windows) <= at_once
        return position_scores(windows)

    sliding_scores(score, torch.zeros(1, 20, 30), WINDOW, STRIDE, at_once)


def test_a_smaller_picture_is_padded_with_missing_values_and_cut_back() -> None:
    picture = torch.randint(256, (2, 4, 5), generator=random(2), dtype=torch.uint8)

    def score(windows: Tensor) -> Tensor:
        assert windows.shape == (1, 2, *WINDOW)
        assert torch.allclose(windows[0, :, :4, :5], picture / 255)
        assert windows[0, :, 4:].isnan().all()
        assert windows[0, :, :, 5:].isnan().all()
        return position_scores(windows)

    assert sliding_scores(score, picture, WINDOW, STRIDE, 1).shape == (2, 4, 5)


def test_images_that_fill_the_canvas_stay_bytes() -> None:
    images = torch.zeros(2, 3, 6, 8, dtype=torch.uint8)
    assert on_canvas(images, None, WINDOW) is images
    assert on_canvas(images, None, Size(4, 4)) is images


def test_what_lies_outside_of_a_picture_is_missing() -> None:
    images = torch.full((2, 3, 6, 8), 51, dtype=torch.uint8)
    padded = on_canvas(images, torch.tensor([[6, 5], [2, 8]]), Size(7, 8))
    assert padded.shape == (2, 3, 7, 8)
    for row, (height, width) in zip(padded, [(6, 5), (2, 8)], strict=True):
        assert (row[:, :height, :width] == 51 / 255).all()
        assert int(row.isnan().sum()) == 3 * (7 * 8 - height * width)


def test_missing_values_of_the_data_stay_missing() -> None:
    images = torch.zeros(1, 1, 2, 2)
    images[0, 0, 1, 1] = math.nan
    assert on_canvas(images, None, Size(2, 3))[0, 0].isnan().tolist() == [
        [False, False, True],
        [False, True, True],
    ]


@pytest.mark.parametrize("whole", [Size(9, 13), Size(21, 40), Size(3, 4), Size(9, 26), Size(1, 1)])
@pytest.mark.parametrize("most", [1, 200, 2**25])
def test_class_maps_are_the_largest_of_torchs_resized_scores(
    whole: Size, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows are resized at a time."""
    monkeypatch.setattr(sliding, "_MOST_VALUES", most)
    scores = torch.randn(5, 9, 13, generator=random(3))
    resized = F.interpolate(scores[None], tuple(whole), mode="bilinear", align_corners=False)[0]
    found = class_map(scores, whole)
    assert found.shape == tuple(whole)
    assert found.dtype == torch.int64
    assert torch.equal(found, resized.argmax(0))
