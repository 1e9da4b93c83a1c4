"""Position embeddings: fixed sine-cosine tables, and resampling of tables to another grid."""

import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import SettingsError


def sine_cosine(embed_dim: int, grid: Size) -> Float[Tensor, "rows d"]:
    """MAE's two-dimensional table (appendix A.1) in float64; row 0, for the class token, is zero.

    The first half of the channels encodes the column and the second half the row. Each half holds sines, then cosines, of
    position x 10000^(-i / (embed_dim / 4)).
    """
    check_width(embed_dim)
    rows, columns = torch.meshgrid(
        torch.arange(grid.height), torch.arange(grid.width), indexing="ij"
    )
    halves = [_one_axis(embed_dim // 2, positions.flatten()) for positions in (columns, rows)]
    patches = torch.cat(halves, dim=1)
    return torch.cat([torch.zeros(1, embed_dim, dtype=torch.float64), patches])


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
    table: Float[Tensor, "1 rows d"], old: Size, new: Size
) -> Float[Tensor, "1 new_rows d"]:
    """The table for another grid, resampled in two dimensions; the first row, of the class token, stays."""
    if old == new:
        return table
    return resample_abs_pos_embed(table, new_size=list(new), old_size=list(old))
