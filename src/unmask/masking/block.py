"""Block-wise masking (BEiT, algorithm 1; MAE table 1f), with an exact count in every image.

The published sampler falls short of its count in about a third of its draws, and now and then hides
nothing at all. Batches of visible patches need equal counts, so a short mask is topped up with
patches at random, and one below half of the count is drawn again, up to ten times.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking.random import check_ratio, count_kept
from unmask.masks import PatchMask

_TRIES = 10
_LEAST_ASPECT = 0.3


@dataclass(frozen=True, kw_only=True)
class BlockMasking:
    """Hide rectangles of patches. Harder than random masking: MAE's best ratio for it is 0.5."""

    ratio: float = 0.5
    """Share of patches to hide, above 0 and below 1 (MAE table 1f tries 0.5 and 0.75)."""

    smallest_block: float = 16 / 196
    """Area of the smallest rectangle as a share of the image; BEiT uses 16 of 196 patches."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0 < self.smallest_block < 1:
            raise SettingsError(
                f"smallest_block must lie between 0 and 1, got {self.smallest_block}; BEiT uses 16/196"
            )

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Draw each image's blocks on the CPU; a generator on a GPU is asked for one seed, and waited for."""
        patches = grid.height * grid.width
        count = patches - count_kept(patches, self.ratio)
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        smallest = self.smallest_block * patches
        mask = _drawn(batch, grid, count, smallest, int(seed))
        return PatchMask(*(part.to(generator.device) for part in mask))


@lru_cache(maxsize=1)  # the parts of a batch, which each draw the whole, come one after the other
def _drawn(batch: int, grid: Size, count: int, smallest: float, seed: int) -> PatchMask:
    local = torch.Generator().manual_seed(seed)
    rows = [_fill(grid, count, smallest, local) for _ in range(batch)]
    return PatchMask.of(torch.stack(rows), local)


def _fill(grid: Size, count: int, smallest: float, generator: torch.Generator) -> Tensor:
    """One mask [n] with exactly `count` hidden patches."""
    hidden = torch.zeros(grid, dtype=torch.bool)
    done = 0
    for _ in range(_TRIES):  # thin grids may have no room for any block: all is then at random
        hidden.zero_()
        done = _place_blocks(hidden, count, smallest, generator)
        if 2 * done >= count:
            break
    flat = hidden.flatten()
    free = (~flat).nonzero().flatten()
    extra = torch.randperm(len(free), generator=generator)[: count - done]
    flat[free[extra]] = True
    return flat


def _place_blocks(hidden: Tensor, count: int, smallest: float, generator: torch.Generator) -> int:
    """Place rectangles until `count` patches are hidden or none fits; the number hidden."""
    done = 0
    while done < count:
        new = _place_one(hidden, count - done, smallest, generator)
        if new == 0:
            break
        done += new
    return done


def _place_one(hidden: Tensor, room: int, smallest: float, generator: torch.Generator) -> int:
    """Try to place one rectangle that hides between 1 and `room` patches; how many it hid."""
    height, width = hidden.shape
    log_aspect = math.log(_LEAST_ASPECT)
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
