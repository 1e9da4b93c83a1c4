"""Positions of patches: fixed sine-cosine tables, BEiT's relative position bias, and their resampling to other grids."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.errors import SettingsError

TableResampling = Literal["bicubic", "antialiased"]
"""Ways to resample a position table to another grid: bicubic, without or with antialiasing."""

_CLASS_ROWS = (
    3  # of a relative bias: class token to patch, patch to class token, class token to class token
)


def sine_cosine(embed_dim: int, grid: Size) -> Float[Tensor, "rows d"]:
    """MAE's two-dimensional table (appendix A.1) in float64; row 0, for the class token, is zero.

    The first half of the channels encodes the column and the second half the row. Each half holds sines, then cosines, of
    position x 10000^(-i / (embed_dim / 4)).
    """
    check_width(embed_dim)
    if torch.get_default_device().type == "meta":  # torch would import its compiler for nothing
        return torch.empty(1 + grid.height * grid.width, embed_dim, dtype=torch.float64)
    rows, columns = _places(grid).unbind(-1)
    halves = [_one_axis(embed_dim // 2, positions) for positions in (columns, rows)]
    patches = torch.cat(halves, dim=1)
    return torch.cat([torch.zeros(1, embed_dim, dtype=torch.float64), patches])


def _places(grid: Size) -> Int[Tensor, "n 2"]:
    """Row and column of each patch."""
    return torch.cartesian_prod(torch.arange(grid.height), torch.arange(grid.width))


def check_width(embed_dim: int) -> None:
    """Raises SettingsError unless the width can be divided into sines and cosines of two axes."""
    if embed_dim % 4:
        raise SettingsError(
            f"embed_dim must be a multiple of 4 for sine-cosine positions, got {embed_dim}; "
            f"the nearest is {max(1, round(embed_dim / 4)) * 4}"
        )


def _one_axis(dim: int, positions: Tensor) -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = positions.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def resized(
    table: Float[Tensor, "1 rows d"], old: Size, new: Size, resampling: TableResampling
) -> Float[Tensor, "1 new_rows d"]:
    """The table for another grid, resampled in two dimensions; the first row, of the class token, stays.

    `bicubic` is MAE's published rule for fine-tuning at another size (448 pixels, table 3), `antialiased` is timm's. With
    antialiasing torch's cubic kernel is another one (a = -0.5 for -0.75), which keeps straight lines straight. So on a
    finer grid it lies nearer to the exact sine-cosine table (docs/weights.md).
    """
    # an exported graph is for any grid, so nothing in it may depend on this one
    if not torch.compiler.is_exporting() and old == new:
        return table
    patches = table[:, 1:].unflatten(1, tuple(old)).permute(0, 3, 1, 2)  # [1 d h w]
    antialias = resampling == "antialiased"
    patches = F.interpolate(
        patches.float(), tuple(new), mode="bicubic", align_corners=False, antialias=antialias
    )
    return torch.cat([table[:, :1], patches.flatten(2).mT.to(table.dtype)], dim=1)


class RelativeBias(nn.Module):
    """A learned bias on attention for the offset between two patches (BEiT; Swin).

    One table for all blocks, with a row for each offset and a column for each head; initialised to 0.
    """

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
        classes = torch.arange(self.class_tokens, device=index.device).expand(index.shape[0], -1)
        tokens = torch.cat([classes, index + self.class_tokens], dim=1)
        whole = self(grid)[0]  # [heads t t]
        return whole[:, tokens[:, :, None], tokens[:, None, :]].transpose(0, 1)


def token_differences(grid: Size, class_tokens: int) -> Int[Tensor, "t t"]:
    """The row of the table for each pair of tokens, (query, key)."""
    positions = _places(grid)
    down, right = (positions[:, None] - positions[None, :]).unbind(-1)
    between = (down + grid.height - 1) * (2 * grid.width - 1) + right + grid.width - 1
    patches, offsets = positions.shape[0], (2 * grid.height - 1) * (2 * grid.width - 1)
    index = torch.full((class_tokens + patches, class_tokens + patches), offsets + 2)
    index[:class_tokens, class_tokens:] = offsets
    index[class_tokens:, :class_tokens] = offsets + 1
    index[class_tokens:, class_tokens:] = between
    return index


def resized_table(
    table: Float[Tensor, "rows heads"], old: Size, new: Size
) -> Float[Tensor, "new_rows heads"]:
    """The table for another grid, resampled over offsets; the rows of class tokens stay."""
    if not torch.compiler.is_exporting() and old == new:
        return table
    before, after = ((2 * grid.height - 1, 2 * grid.width - 1) for grid in (old, new))
    patches = table[:-_CLASS_ROWS].T.unflatten(1, before)[None]
    patches = F.interpolate(patches, after, mode="bicubic", align_corners=True)
    return torch.cat([patches[0].flatten(1).T, table[-_CLASS_ROWS:]])
