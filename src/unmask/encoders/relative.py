"""Relative position bias: a learned bias on attention for the offset between two patches (BEiT; Swin)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Size

_CLASS_ROWS = 3  # class token to patch, patch to class token, class token to class token


class RelativeBias(nn.Module):
    """One table for all blocks, with a row for each offset and a column for each head; initialised to 0."""

    def __init__(self, grid: Size, num_heads: int, class_tokens: int) -> None:
        super().__init__()
        self.grid, self.class_tokens = grid, class_tokens
        rows = (2 * grid.height - 1) * (2 * grid.width - 1)
        self.table = nn.Parameter(torch.zeros(rows + _CLASS_ROWS, num_heads))

    def forward(self, grid: Size) -> Float[Tensor, "1 heads t t"]:
        """The bias between all tokens of an image with this grid, class tokens first."""
        table = resized_table(self.table, self.grid, grid)
        index = token_differences(grid, self.class_tokens).to(table.device)
        return table[index].permute(2, 0, 1)[None]

    def among(self, grid: Size, index: Int[Tensor, "m k"]) -> Float[Tensor, "m heads t t"]:
        """The bias between the class tokens and the patches at `index`, for each row of a mask."""
        classes = torch.arange(self.class_tokens, device=index.device).expand(len(index), -1)
        tokens = torch.cat([classes, index + self.class_tokens], dim=1)
        whole = self(grid)[0]  # [heads t t]
        return whole[:, tokens[:, :, None], tokens[:, None, :]].transpose(0, 1)


def token_differences(grid: Size, class_tokens: int) -> Int[Tensor, "t t"]:
    """The row of the table for each pair of tokens, (query, key)."""
    positions = torch.cartesian_prod(torch.arange(grid.height), torch.arange(grid.width))
    down, right = (positions[:, None] - positions[None, :]).unbind(-1)
    between = (down + grid.height - 1) * (2 * grid.width - 1) + right + grid.width - 1
    patches, offsets = len(positions), (2 * grid.height - 1) * (2 * grid.width - 1)
    index = torch.full((class_tokens + patches, class_tokens + patches), offsets + 2)
    index[:class_tokens, class_tokens:] = offsets
    index[class_tokens:, :class_tokens] = offsets + 1
    index[class_tokens:, class_tokens:] = between
    return index


def resized_table(
    table: Float[Tensor, "rows heads"], old: Size, new: Size
) -> Float[Tensor, "new_rows heads"]:
    """The table for another grid, resampled over offsets; the rows of class tokens stay."""
    if old == new:
        return table
    before, after = ((2 * grid.height - 1, 2 * grid.width - 1) for grid in (old, new))
    patches = table[:-_CLASS_ROWS].T.unflatten(1, before)[None]
    patches = F.interpolate(patches, after, mode="bicubic", align_corners=True)
    return torch.cat([patches[0].flatten(1).T, table[-_CLASS_ROWS:]])
