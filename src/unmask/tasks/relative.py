"""Decomposed relative positions: a bias on attention for the offset in rows and the offset in columns.

MViTv2 (Li and others, 2022, equation 4), as ViTDet uses them.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Size


class DecomposedPositions(nn.Module):
    """The bias of a query on a key: the query times a learned vector for their offset, for rows and columns each.

    All heads share the two tables. They start at 0, so that attention starts as it was pretrained. On another grid they
    are resampled linearly.
    """

    def __init__(self, grid: Size, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(2 * grid.height - 1, width))
        self.columns = nn.Parameter(torch.zeros(2 * grid.width - 1, width))

    def forward(
        self, query: Float[Tensor, "m t d"], num_heads: int, grid: Size
    ) -> Float[Tensor, "m heads t t"]:
        """The bias for the queries of a grid of tokens, which are not divided by the root of their width."""
        places = query.unflatten(2, (num_heads, -1)).unflatten(1, tuple(grid))  # [m y x heads c]
        down = torch.einsum("myxhc,ykc->mhyxk", places, _of_pairs(self.rows, grid.height))
        right = torch.einsum("myxhc,xkc->mhyxk", places, _of_pairs(self.columns, grid.width))
        bias = down[..., :, None] + right[..., None, :]  # [m heads y x key_row key_column]
        return bias.flatten(4).flatten(2, 3)


def _of_pairs(table: Float[Tensor, "offsets c"], side: int) -> Float[Tensor, "q k c"]:
    """The vector for each pair of query and key along one axis."""
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]
