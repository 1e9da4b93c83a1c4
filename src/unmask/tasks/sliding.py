"""Scores of every pixel of a picture of any size, from windows that slide over it."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.patches import size_of
from unmask.tasks.canvas import on_canvas

ScoreWindows = Callable[[Shaped[Tensor, "b c h w"]], Float[Tensor, "b classes h w"]]
"""Class scores of every pixel of windows."""

_MOST_VALUES = 2**25  # scores that are resized to the original size at a time: 128 MiB


def corners(size: Size, window: Size, stride: Size) -> list[tuple[int, int]]:
    """Top and left of each window, row by row; the last of a row or column ends at the border of the picture.

    As in mmsegmentation's `slide_inference`: every pixel is covered, and a picture no larger than a window has one.
    """
    tops, lefts = (
        _starts(whole, part, step) for whole, part, step in zip(size, window, stride, strict=True)
    )
    return [(top, left) for top in tops for left in lefts]


def _starts(whole: int, part: int, step: int) -> list[int]:
    last = max(0, whole - part)
    return [*range(0, last, step), last]


def sliding_scores(
    score: ScoreWindows,
    picture: Shaped[Tensor, "c h w"],
    window: Size,
    stride: Size,
    at_once: int,
) -> Float[Tensor, "classes h w"]:
    """The mean score, over all windows that contain a pixel, of each class at each pixel, in float32.

    `score` gets at most `at_once` windows of exactly this size; smaller pictures are padded with missing values. Besides
    these windows, only the sum for this one picture is in memory.
    """
    height, width = picture.shape[-2:]
    whole = on_canvas(picture[None], None, window)[0]
    places = corners(size_of(whole[None]), window, stride)
    total: Tensor | None = None
    counts = torch.zeros(whole.shape[-2:], device=whole.device)
    for some in _groups(places, at_once):
        cuts = torch.stack([_cut(whole, place, window) for place in some])
        for place, values in zip(some, score(cuts).float(), strict=True):
            if total is None:
                total = values.new_zeros(len(values), *whole.shape[-2:])
            _cut(total, place, window).add_(values)
            _cut(counts, place, window).add_(1)
    assert total is not None  # every picture has a window
    return (total.div_(counts))[:, :height, :width]


def _groups(places: list[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(places), most):
        yield places[start : start + most]


def _cut(values: Tensor, place: tuple[int, int], window: Size) -> Tensor:
    top, left = place
    return values[..., top : top + window.height, left : left + window.width]


def class_map(scores: Float[Tensor, "classes h w"], whole: Size) -> Int[Tensor, "whole_h whole_w"]:
    """The class with the highest score at each pixel, after bilinear resizing of the scores to the size `whole`.

    A few rows are resized at a time, so that large pictures with many classes need little memory.
    """
    if tuple(scores.shape[-2:]) == tuple(whole):
        return scores.argmax(0)
    rows = max(1, _MOST_VALUES // (len(scores) * whole.width))
    bands = (
        _resized_rows(scores, whole, range(top, min(top + rows, whole.height))).argmax(0)
        for top in range(0, whole.height, rows)
    )
    return torch.cat(list(bands))


def _resized_rows(
    scores: Float[Tensor, "classes h w"], whole: Size, rows: range
) -> Float[Tensor, "classes rows whole_w"]:
    """Some rows of the scores, resized as by torch's bilinear interpolation without aligned corners."""
    height = scores.shape[1]
    places = torch.arange(rows.start, rows.stop, device=scores.device, dtype=scores.dtype)
    places = ((places + 0.5) * (height / whole.height) - 0.5).clamp(min=0)
    above = places.long().clamp(max=height - 1)
    below = (above + 1).clamp(max=height - 1)
    band = torch.lerp(scores[:, above], scores[:, below], (places - above)[:, None])
    return F.interpolate(band[None], (len(rows), whole.width), mode="bilinear")[0]
