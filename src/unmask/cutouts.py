"""Masks of objects in a large picture, each kept as the part around its object: whole ones of 10,000 x 10,000 take 100 MB."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Place = tuple[int, int]
"""Top and left of a part in the picture."""


@dataclass(frozen=True, kw_only=True)
class Cutouts:
    """Masks in a picture, which may be indexed and resized as a tensor [n h w]."""

    places: tuple[Place, ...]
    """Where the part of each mask begins."""
    parts: tuple[Bool[Tensor, "_ _"], ...]
    """Beyond its part a mask is empty."""
    size: tuple[int, int]
    """Height and width of the picture."""

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, row: int) -> Bool[Tensor, "h w"]:
        return self.rows([row]).resized(self.size)[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of masks, height and width."""
        return len(self), *self.size

    def rows(self, chosen: Iterable[int]) -> "Cutouts":
        """Some of the masks."""
        rows = list(chosen)
        return Cutouts(
            places=tuple(self.places[row] for row in rows),
            parts=tuple(self.parts[row] for row in rows),
            size=self.size,
        )

    def resized(self, size: tuple[int, int]) -> Bool[Tensor, "n new_h new_w"]:
        """The whole masks in another size, or in their own: each pixel is the nearest one."""
        whole = torch.zeros(len(self), *size, dtype=torch.bool)
        nearest = [
            ((torch.arange(new) + 0.5) * (old / new)).long()
            for new, old in zip(size, self.size, strict=True)
        ]
        for canvas, (top, left), part in zip(whole, self.places, self.parts, strict=True):
            rows, columns = (
                _within(*one) for one in zip(nearest, (top, left), part.shape, strict=True)
            )
            values = part[nearest[0][rows] - top][:, nearest[1][columns] - left]
            canvas[rows[:, None], columns] = values
        return whole


def _within(places: Int[Tensor, " n"], start: int, length: int) -> Int[Tensor, " k"]:
    """The numbers of the places in a range."""
    return ((places >= start) & (places < start + length)).nonzero()[:, 0]


def cutout(
    mask: Bool[Tensor, "h w"], box: Iterable[float], offset: Place
) -> tuple[Place, Bool[Tensor, "_ _"]]:
    """The part of a mask around its box, which lies within a pixel of it, and its place; `offset` is that of the mask."""
    left, top, right, bottom = box
    first = max(0, int(top) - 1), max(0, int(left) - 1)
    part = mask[first[0] : int(bottom) + 2, first[1] : int(right) + 2].clone()
    return (offset[0] + first[0], offset[1] + first[1]), part


def joined_cutout(masks: Cutouts) -> tuple[Place, Bool[Tensor, "_ _"]]:
    """The pixels of any of some masks, and the place of this part."""
    top, left = (min(place[axis] for place in masks.places) for axis in (0, 1))
    bottom, right = (
        max(
            place[axis] + part.shape[axis]
            for place, part in zip(masks.places, masks.parts, strict=True)
        )
        for axis in (0, 1)
    )
    whole = torch.zeros(bottom - top, right - left, dtype=torch.bool)
    for (y, x), part in zip(masks.places, masks.parts, strict=True):
        height, width = part.shape
        whole[y - top : y - top + height, x - left : x - left + width] |= part
    return (top, left), whole
