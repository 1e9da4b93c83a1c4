"""Block-wise masking (BEiT, algorithm 1; MAE table 1f), with the same number of hidden patches in every image.

The published sampler hides too few patches in about a third of its draws, and sometimes none. Visible patches are
stacked into batches, so every image must hide the same number. A mask that hides too few is therefore filled up with
random patches; a mask that hides less than half of them is drawn again, up to ten times.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from unmask.contracts import Size
from unmask.masking.random import count_kept
from unmask.masks import PatchMask
from unmask.spec import within

_TRIES = 10  # for a rectangle as in BEiT's published code; for a whole mask ours
_SMALLEST_ASPECT = 0.3  # of a rectangle's sides; the largest is its inverse (BEiT, algorithm 1)


@dataclass(frozen=True, kw_only=True)
class BlockMasking:
    """Hide rectangles of patches. Harder than random masking: MAE's best ratio for it is 0.5."""

    ratio: float = 0.5
    """Share of patches to hide, between 0 and 1 (MAE table 1f compares 0.5 and 0.75)."""

    smallest_block: float = 16 / 196
    """Area of the smallest rectangle as a share of the image; BEiT uses 16 of 196 patches."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "ratio", usual="MAE uses 0.75")
        within(self, "(0, 1)", "smallest_block", usual="BEiT uses 16/196")

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Draw the blocks of each image on the CPU, from one seed; a GPU is synchronised to read the seed."""
        patches = grid.height * grid.width
        count = patches - count_kept(patches, self.ratio)
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        smallest = self.smallest_block * patches
        mask = _draw(batch, grid, count, smallest, int(seed))
        return PatchMask(*(tensor.to(generator.device) for tensor in mask))


# every micro-batch of a step draws the masks of the whole step, one after the other: keep the last result
@lru_cache(maxsize=1)
def _draw(batch: int, grid: Size, count: int, smallest: float, seed: int) -> PatchMask:
    generator = torch.Generator().manual_seed(seed)
    rows = [_draw_one(grid, count, smallest, generator) for _ in range(batch)]
    return PatchMask.of(torch.stack(rows), generator)


def _draw_one(grid: Size, count: int, smallest: float, generator: torch.Generator) -> Tensor:
    """One mask [n] with exactly `count` hidden patches."""
    hidden = torch.zeros(grid, dtype=torch.bool)
    placed = 0
    for _ in range(_TRIES):
        hidden.zero_()
        placed = _place_blocks(hidden, count, smallest, generator)
        if 2 * placed >= count:
            break  # else a narrow grid may have no room for a block; then all patches are random
    flat = hidden.flatten()
    visible = (~flat).nonzero().flatten()
    extra = torch.randperm(len(visible), generator=generator)[: count - placed]
    flat[visible[extra]] = True
    return flat


def _place_blocks(hidden: Tensor, count: int, smallest: float, generator: torch.Generator) -> int:
    """Place rectangles until `count` patches are hidden or no rectangle fits; returns the number hidden."""
    placed = 0
    while placed < count:
        new = _place_block(hidden, count - placed, smallest, generator)
        if new == 0:
            break
        placed += new
    return placed


def _place_block(hidden: Tensor, room: int, smallest: float, generator: torch.Generator) -> int:
    """Try to place a rectangle that newly hides 1 to `room` patches; returns how many it hides."""
    height, width = hidden.shape
    log_aspect = math.log(_SMALLEST_ASPECT)
    draws = torch.rand(_TRIES, 4, generator=generator).tolist()
    for area_draw, aspect_draw, top_draw, left_draw in draws:
        area = smallest + area_draw * (room - smallest)
        aspect = math.exp(log_aspect - 2 * log_aspect * aspect_draw)
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < rows < height and 0 < columns < width):
            continue
        top, left = int(top_draw * (height - rows + 1)), int(left_draw * (width - columns + 1))
        block = hidden[top : top + rows, left : left + columns]
        new = rows * columns - int(block.sum())
        if 0 < new <= room:
            block.fill_(True)
            return new
    return 0
