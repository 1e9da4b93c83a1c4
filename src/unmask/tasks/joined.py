"""Objects that are found in overlapping tiles of a picture, each once, also those that no tile shows as a whole."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unmask.cutouts import Cutouts, joined_cutout
from unmask.tasks.boxes import areas
from unmask.tasks.detections import Detections

_SAME = 0.5  # intersection over union from which on two objects of a class are one
_COVERED = 0.7  # share of a part of an object, from which on an object that covers it holds it


class Tile(NamedTuple):
    """What is found in a tile, in the frame of the picture."""

    extent: Float[Tensor, "4"]
    """Left, top, right and bottom of the tile."""
    found: Detections
    """With masks as `Cutouts`, or without."""
    is_cut: Bool[Tensor, " n"]
    """Which objects end at a border of the tile within the picture, so that they may go on beyond it."""


def joined(tiles: Sequence[Tile]) -> Detections:
    """The objects of all tiles.

    Parts of objects in two tiles belong together if they agree where both tiles look. A part of an object that another tile
    shows as a whole is left out; parts of an object that no tile shows as a whole are joined. Then overlapping objects of
    a class are left out, but for the surest.
    """
    from torchvision.ops import batched_nms

    boxes = torch.cat([tile.found.boxes for tile in tiles])
    scores = torch.cat([tile.found.scores for tile in tiles])
    classes = torch.cat([tile.found.classes for tile in tiles])
    is_cut = torch.cat([tile.is_cut for tile in tiles])
    groups = _groups(tiles, is_cut.tolist())
    firsts = torch.tensor([group[0] for group in groups], dtype=torch.int64)
    boxes = torch.stack([_around(boxes[group]) for group in groups]) if groups else boxes
    scores = torch.tensor([float(scores[group].max()) for group in groups])
    classes, is_cut = classes[firsts], is_cut[firsts]
    chosen = (~_covered(boxes, classes, is_cut)).nonzero()[:, 0]
    chosen = chosen[batched_nms(boxes[chosen], scores[chosen], classes[chosen], _SAME)]
    masks = _masks(tiles, [groups[row] for row in chosen.tolist()])
    return Detections(boxes[chosen], scores[chosen], classes[chosen], masks)


def _groups(tiles: Sequence[Tile], is_cut: list[bool]) -> list[list[int]]:
    """The numbers of the detections that make up each object."""
    group = {number: [number] for number in range(len(is_cut))}
    starts = [0]
    for tile in tiles:
        starts.append(starts[-1] + len(tile.found.boxes))
    is_part_of_whole: set[int] = set()
    for first, second in combinations(range(len(tiles)), 2):
        for row, column in _agreeing(tiles[first], tiles[second]):
            one, other = starts[first] + row, starts[second] + column
            if is_cut[one] and is_cut[other] and group[one] is not group[other]:
                group[one] += group[other]
                for number in group[other]:
                    group[number] = group[one]
            elif is_cut[one] != is_cut[other]:
                is_part_of_whole.add(one if is_cut[one] else other)
    objects = {id(members): members for members in group.values()}
    return [one for one in objects.values() if is_part_of_whole.isdisjoint(one)]


def _agreeing(one: Tile, other: Tile) -> list[tuple[int, int]]:
    """Detections of two tiles, at least one of them cut, that agree best with one another where both tiles look."""
    low, high = (
        torch.maximum(one.extent, other.extent)[:2],
        torch.minimum(one.extent, other.extent)[2:],
    )
    if not bool((high > low).all()) or not (bool(one.is_cut.any()) or bool(other.is_cut.any())):
        return []
    if not len(one.is_cut) or not len(other.is_cut):
        return []
    from torchvision.ops import box_iou

    first, second = (_clipped(tile.found.boxes, low, high) for tile in (one, other))
    overlap = box_iou(first, second).nan_to_num()  # of two without extent
    overlap[one.found.classes[:, None] != other.found.classes] = 0
    overlap[~(one.is_cut[:, None] | other.is_cut)] = 0
    best = (overlap == overlap.amax(1, keepdim=True)) & (overlap == overlap.amax(0, keepdim=True))
    return [(row, column) for row, column in (best & (overlap >= _SAME)).nonzero().tolist()]


def _clipped(boxes: Float[Tensor, "n 4"], low: Tensor, high: Tensor) -> Float[Tensor, "n 4"]:
    """Boxes within a rectangle; empty ones beyond it."""
    start = torch.maximum(boxes[:, :2], low)
    return torch.cat([start, torch.maximum(torch.minimum(boxes[:, 2:], high), start)], 1)


def _around(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "4"]:
    return torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)])


def _covered(
    boxes: Float[Tensor, "n 4"], classes: Tensor, is_cut: Bool[Tensor, " n"]
) -> Bool[Tensor, " n"]:
    """Which objects were cut, and lie in a larger one of their class."""
    covered, size = torch.zeros(len(boxes), dtype=torch.bool), areas(boxes)
    # one at a time, because all pairs would not fit in memory
    for row in is_cut.nonzero()[:, 0].tolist():
        larger = (size > size[row]) & (classes == classes[row])
        shared = areas(_clipped(boxes[larger], boxes[row, :2], boxes[row, 2:]))
        covered[row] = bool((shared > _COVERED * size[row]).any())
    return covered


def _masks(tiles: Sequence[Tile], groups: list[list[int]]) -> Cutouts | None:
    masks = [tile.found.masks for tile in tiles]
    parts = [one for one in masks if isinstance(one, Cutouts)]
    if len(parts) < len(masks):
        return None
    every = Cutouts(
        places=tuple(place for one in parts for place in one.places),
        parts=tuple(part for one in parts for part in one.parts),
        size=parts[0].size,
    )
    whole = [joined_cutout(every.rows(group)) for group in groups]
    return Cutouts(
        places=tuple(place for place, _ in whole),
        parts=tuple(part for _, part in whole),
        size=every.size,
    )
