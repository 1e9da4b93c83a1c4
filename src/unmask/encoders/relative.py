"""Relative positions: a learned bias on attention for how far apart two patches are (BEiT; Swin)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Size

_SPECIAL = 3  # from a class token to a patch, from a patch to a class token, between class tokens


class RelativeBias(nn.Module):
    """One table for all blocks: a row for each difference of places, a column for each head; it starts at 0."""

    def __init__(self, grid: Size, num_heads: int, class_tokens: int) -> None:
        super().__init__()
        self.grid, self.class_tokens = grid, class_tokens
        rows = (2 * grid.height - 1) * (2 * grid.width - 1)
        self.table = nn.Parameter(torch.zeros(rows + _SPECIAL, num_heads))

    def forward(self, grid: Size) -> Float[Tensor, "1 heads t t"]:
        """The bias between all tokens of an image of this many patches, class tokens first."""
        table = resized_table(self.table, self.grid, grid)
        index = token_differences(grid, self.class_tokens).to(table.device)
        return table[index].permute(2, 0, 1)[None]

    def among(self, grid: Size, index: Int[Tensor, "m k"]) -> Float[Tensor, "m heads t t"]:
        """The bias between class tokens and the patches at `index`, row by row."""
        classes = torch.arange(self.class_tokens, device=index.device).expand(len(index), -1)
        tokens = torch.cat([classes, index + self.class_tokens], dim=1)
        whole = self(grid)[0]  # [heads t t]
        return whole[:, tokens[:, :, None], tokens[:, None, :]].transpose(0, 1)


def token_differences(grid: Size, class_tokens: int) -> Int[Tensor, "t t"]:
    """The row of the table for each pair of tokens, (query, key)."""
    places = torch.cartesian_prod(torch.arange(grid.height), torch.arange(grid.width))
    down, right = (places[:, None] - places[None, :]).unbind(-1)
    between = (down + grid.height - 1) * (2 * grid.width - 1) + right + grid.width - 1
    patches, last = len(places), (2 * grid.height - 1) * (2 * grid.width - 1)
    index = torch.full((class_tokens + patches, class_tokens + patches), last + 2)
    index[:class_tokens, class_tokens:] = last
    index[class_tokens:, :class_tokens] = last + 1
    index[class_tokens:, class_tokens:] = between
    return index


def resized_table(
    table: Float[Tensor, "rows heads"], old: Size, new: Size
) -> Float[Tensor, "new_rows heads"]:
    """The table for another grid, resampled over differences; rows of class tokens stay."""
    if old == new:
        return table
    before, after = ((2 * grid.height - 1, 2 * grid.width - 1) for grid in (old, new))
    patches = table[:-_SPECIAL].T.unflatten(1, before)[None]
    patches = F.interpolate(patches, after, mode="bicubic", align_corners=True)
    return torch.cat([patches[0].flatten(1).T, table[-_SPECIAL:]])
