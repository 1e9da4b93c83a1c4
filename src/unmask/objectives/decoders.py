"""From visible tokens to guesses for the hidden patches."""

from dataclasses import dataclass
from typing import Annotated, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Encoded, PatchMask, Size
from unmask.encoders.layers import NORM_EPSILON, Block, drawn_token, initialize
from unmask.encoders.positions import check_width, resized, sine_cosine
from unmask.errors import SettingsError
from unmask.spec import Kind


@dataclass(frozen=True, kw_only=True)
class SelfAttentionDecoder:
    """MAE's decoder: a small ViT over the visible tokens and a mask token for each hidden patch."""

    embed_dim: int = 512
    """Width (MAE table 1b)."""

    depth: int = 8
    """Number of blocks (MAE table 1a)."""

    num_heads: int = 16
    """Attention heads; must divide embed_dim."""

    mlp_ratio: float = 4.0
    """Width of the hidden layer of each MLP, relative to embed_dim."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise SettingsError(
                f"the decoder's depth must be at least 1, got {self.depth}; MAE uses 8"
            )
        check_width(self.embed_dim)

    def build(self, encoder_dim: int, grid: Size, out_dim: int) -> "MaskTokenDecoder":
        """The module, for tokens of `encoder_dim` on this grid and guesses of `out_dim` values."""
        return MaskTokenDecoder(self, encoder_dim, grid, out_dim)


AnyDecoder = Annotated[SelfAttentionDecoder, Kind("self-attention")]


class MaskTokenDecoder(nn.Module):
    """See `SelfAttentionDecoder`.

    Tokens are never put back into image order; the first block's projections of hidden tokens, equal
    in all images, are made once for each place; the last block and the prediction are computed for
    hidden patches alone. The same mathematics as the paper's, with less work.
    """

    def __init__(
        self, spec: SelfAttentionDecoder, encoder_dim: int, grid: Size, out_dim: int
    ) -> None:
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(encoder_dim, spec.embed_dim)
        self.mask_token = drawn_token(spec.embed_dim)
        table = sine_cosine(spec.embed_dim, grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth)
        )
        self.norm = nn.LayerNorm(spec.embed_dim, eps=NORM_EPSILON)
        self.pred = nn.Linear(spec.embed_dim, out_dim)
        initialize(self)

    def forward(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m r p"]:
        """A guess for each hidden patch, in the order of `mask.removed_index`."""
        return self._run(encoded, mask, grid, start=encoded.cls.shape[1] + encoded.patches.shape[1])

    def everything(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m n p"]:
        """The output at every patch, visible ones first; only those of hidden patches were trained."""
        return self._run(encoded, mask, grid, start=encoded.cls.shape[1])

    def _run(
        self, encoded: Encoded, mask: PatchMask, grid: Size, start: int
    ) -> Float[Tensor, "m out p"]:
        positions = resized(self.pos_embed, self.grid, grid)[0]
        places = positions[1:]
        seen = self.embed(torch.cat([encoded.cls, encoded.patches], dim=1))
        classes = encoded.cls.shape[1]
        seen = torch.cat(
            [seen[:, :classes] + positions[0], seen[:, classes:] + places[mask.kept_index]], dim=1
        )
        hidden = self.mask_token[0] + places  # [n e]: a hidden token depends on its place alone
        tokens = torch.cat([seen, F.embedding(mask.removed_index, hidden)], dim=1)
        if len(self.blocks) > 1:
            first = cast(Block, self.blocks[0])
            everywhere = first.project(hidden[None])[0]  # [n qkv], once for all images
            projected = F.embedding(mask.removed_index, everywhere)
            tokens = first.finish(tokens, torch.cat([first.project(seen), projected], dim=1))
        for block in self.blocks[1:-1]:
            tokens = block(tokens)
        return self.pred(self.norm(self.blocks[-1](tokens, start)))
