"""Decoders: from the encoder's tokens to predictions for the hidden patches."""

import math
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.attention import attend
from unmask.contracts import Encoded, Size
from unmask.encoders.layers import (
    NORM_EPSILON,
    Block,
    Mlp,
    check_heads,
    drawn_normal,
    drawn_token,
    initialize,
)
from unmask.encoders.positions import TableResampling, check_width, resized, sine_cosine
from unmask.encoders.vit import VisionTransformer
from unmask.masks import PatchMask
from unmask.patches import taken
from unmask.spec import MOST_BLOCKS, Kind, sized, within


@dataclass(frozen=True, kw_only=True)
class SelfAttentionDecoder:
    """MAE's decoder: a small ViT over the visible tokens and one mask token per hidden patch."""

    embed_dim: int = 512
    """Width (MAE table 1b)."""

    depth: int = 8
    """Number of blocks (MAE table 1a)."""

    num_heads: int = 16
    """Attention heads; must divide embed_dim."""

    mlp_ratio: float = 4.0
    """Width of the hidden layer of each MLP, relative to embed_dim."""

    def __post_init__(self) -> None:
        sized(self, "depth", most=MOST_BLOCKS, usual="MAE uses 8")
        sized(self, "embed_dim", "num_heads")
        within(self, "(0, 1000]", "mlp_ratio", usual="MAE uses 4")
        check_width(self.embed_dim)

    def build(
        self, encoder: VisionTransformer, out_dim: int, *, has_mask_token: bool = True
    ) -> "TokenDecoder":
        """The module, which predicts `out_dim` values per patch.

        It has a mask token unless the encoder has one and returns tokens of all patches.
        """
        return TokenDecoder(self, encoder, out_dim, has_mask_token=has_mask_token)


@dataclass(frozen=True, kw_only=True)
class CrossAttentionDecoder:
    """CrossMAE's decoder (Fu, Lian and others, TMLR 2025): hidden patches attend to visible ones, not to each other.

    Each patch to rebuild has a query, the mask token plus its position, which passes through blocks of cross-attention
    and MLP. Each block has its own keys and values: a learned mixture of the inputs of all encoder blocks and the
    encoder's output. Patches are rebuilt independently, so any of them can be left out (`MAE.predicted`).
    """

    embed_dim: int = 512
    """Width of the queries."""

    depth: int = 12
    """Number of blocks (published: 12; with 1 it still reaches 83.0 % on ImageNet-1K)."""

    num_heads: int = 16
    """Attention heads; must divide embed_dim."""

    mlp_ratio: float = 4.0
    """Width of the hidden layer of each MLP, relative to embed_dim."""

    def __post_init__(self) -> None:
        sized(self, "depth", most=MOST_BLOCKS, usual="CrossMAE uses 12")
        sized(self, "embed_dim", "num_heads")
        within(self, "(0, 1000]", "mlp_ratio", usual="CrossMAE uses 4")
        check_width(self.embed_dim)
        check_heads(self.embed_dim, self.num_heads)

    def build(
        self, encoder: VisionTransformer, out_dim: int, *, has_mask_token: bool = True
    ) -> "CrossDecoder":
        """The module; it always has a mask token."""
        return CrossDecoder(self, encoder, out_dim)


@dataclass(frozen=True, kw_only=True)
class LinearDecoder:
    """One linear layer, for encoders that see mask tokens and so decode themselves (BEiT; SimMIM)."""

    def build(
        self, encoder: VisionTransformer, out_dim: int, *, has_mask_token: bool = False
    ) -> "LinearPrediction":
        """The module; it never has a mask token."""
        return LinearPrediction(encoder, out_dim)


AnyDecoder = (
    Annotated[SelfAttentionDecoder, Kind("self-attention")]
    | Annotated[CrossAttentionDecoder, Kind("cross-attention")]
    | Annotated[LinearDecoder, Kind("linear")]
)


class TokenDecoder(nn.Module):
    """See `SelfAttentionDecoder`, for an encoder with and without tokens of hidden patches.

    The same mathematics as the paper's, with less work: tokens are never put back into image order, but visible ones
    come first. So the last block and the prediction are computed for hidden patches only. With a mask token, hidden
    tokens are the same in all images before the first block, so its projections of them are computed once per position.
    """

    taps = range(0)
    fused = ("open", "close")

    def __init__(
        self,
        spec: SelfAttentionDecoder,
        encoder: VisionTransformer,
        out_dim: int,
        *,
        has_mask_token: bool,
    ) -> None:
        """`has_mask_token`: the decoder inserts a token for each hidden patch; else the encoder gives one."""
        super().__init__()
        self.grid = encoder.grid
        self.resampling: TableResampling = encoder.position_resampling
        self.embed = nn.Linear(encoder.embed_dim, spec.embed_dim)
        self.mask_token = drawn_token(spec.embed_dim) if has_mask_token else None
        table = sine_cosine(spec.embed_dim, encoder.grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth)
        )
        self.norm = nn.LayerNorm(spec.embed_dim, eps=NORM_EPSILON)
        self.pred = nn.Linear(spec.embed_dim, out_dim)
        initialize(self)

    def forward(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m r p"]:
        """The prediction for each hidden patch, in the order of `mask.removed_index`."""
        return self._run(encoded, mask, grid, start=encoded.cls.shape[1] + mask.kept_index.shape[1])

    def everything(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m n p"]:
        """The output at every patch, visible ones first; training only scores hidden patches."""
        return self._run(encoded, mask, grid, start=encoded.cls.shape[1])

    def _run(
        self, encoded: Encoded, mask: PatchMask, grid: Size, start: int
    ) -> Float[Tensor, "m out p"]:
        tokens = self.open(encoded, mask, grid)
        opened = 0 if self.mask_token is None else 1  # `open` has run the first block already
        for block in self.blocks[opened:-1]:
            tokens = block(tokens)
        return self.close(tokens, start)

    def open(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m t e"]:
        """Class tokens, visible tokens and hidden tokens; after the first block if there is a mask token."""
        table = resized(self.pos_embed, self.grid, grid, self.resampling)
        positions = table[0]  # the class token's, then [n e]
        if self.mask_token is None:
            order = torch.cat([mask.kept_index, mask.removed_index], dim=1)
            return self._embed(encoded.cls, taken(encoded.patches, order), order, positions)
        visible = self._embed(encoded.cls, encoded.patches, mask.kept_index, positions)
        # a hidden token depends on its position only
        hidden = self.mask_token[0] + positions[1:]  # [n e]
        tokens = torch.cat([visible, F.embedding(mask.removed_index, hidden)], dim=1)
        if len(self.blocks) == 1:
            return tokens  # `close` runs the only block
        first = cast(Block, self.blocks[0])
        projected_hidden = first.project(hidden[None])[0]  # [n qkv], once for all images
        projected = F.embedding(mask.removed_index, projected_hidden)
        return first.finish(tokens, torch.cat([first.project(visible), projected], dim=1))

    def _embed(
        self,
        cls: Float[Tensor, "m g d"],
        patches: Float[Tensor, "m k d"],
        index: Int[Tensor, "m k"],
        positions: Float[Tensor, "rows e"],
    ) -> Float[Tensor, "m t e"]:
        """The encoder's tokens at the decoder's width, with positions."""
        tokens = self.embed(torch.cat([cls, patches], dim=1))
        classes = cls.shape[1]
        return torch.cat(
            [tokens[:, :classes] + positions[0], tokens[:, classes:] + positions[1:][index]], dim=1
        )

    def close(self, tokens: Float[Tensor, "m t e"], start: int) -> Float[Tensor, "m out p"]:
        """The last block and the prediction, for the tokens from `start` on."""
        return self.pred(self.norm(self.blocks[-1](tokens, start)))


class LinearPrediction(nn.Module):
    """See `LinearDecoder`. Weights start from a truncated normal distribution (0.02), as in BEiT."""

    taps = range(0)

    def __init__(self, encoder: VisionTransformer, out_dim: int) -> None:
        super().__init__()
        self.pred = nn.Linear(encoder.embed_dim, out_dim)
        nn.init.trunc_normal_(self.pred.weight, std=0.02)
        nn.init.zeros_(self.pred.bias)

    def forward(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m r p"]:
        """The prediction for each hidden patch, in the order of `mask.removed_index`."""
        return self.pred(taken(encoded.patches, mask.removed_index))

    def everything(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m n p"]:
        """The output at every patch, visible ones first; training only scores hidden patches."""
        order = torch.cat([mask.kept_index, mask.removed_index], dim=1)
        return self.pred(taken(encoded.patches, order))


class CrossBlock(nn.Module):
    """Queries attend to a memory, then pass through an MLP; pre-norm, with a separate norm for the memory."""

    def __init__(self, spec: CrossAttentionDecoder, memory_dim: int) -> None:
        super().__init__()
        width = spec.embed_dim
        self.num_heads = spec.num_heads
        self.norm_memory = nn.LayerNorm(memory_dim, eps=NORM_EPSILON)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(memory_dim, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = Mlp(width, int(width * spec.mlp_ratio))

    def forward(
        self, tokens: Float[Tensor, "m r e"], memory: Float[Tensor, "m t d"]
    ) -> Float[Tensor, "m r e"]:
        """The queries after this block."""
        key, value = self.key_value(self.norm_memory(memory)).chunk(2, dim=-1)
        mixed = attend(self.query(self.norm1(tokens)), key, value, self.num_heads)
        tokens = tokens + self.proj(mixed)
        return tokens + self.mlp(self.norm2(tokens))


class CrossDecoder(nn.Module):
    """See `CrossAttentionDecoder`.

    The last of the mixed feature maps is the encoder's output after its final norm, so that this norm is trained too. The
    mixing weights start from N(0, 1 / maps), so that a memory has the scale of a feature map. The decoder adds no
    positions to the memory, because the encoder's tokens contain theirs.
    """

    fused = ("open", "close")

    def __init__(
        self, spec: CrossAttentionDecoder, encoder: VisionTransformer, out_dim: int
    ) -> None:
        super().__init__()
        self.grid = encoder.grid
        self.resampling: TableResampling = encoder.position_resampling
        self.taps = range(len(encoder.blocks))
        self.mask_token = drawn_token(spec.embed_dim)
        table = sine_cosine(spec.embed_dim, encoder.grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        maps = len(encoder.blocks) + 1
        self.mixture = drawn_normal(spec.depth, maps, std=1 / math.sqrt(maps))
        self.blocks = nn.ModuleList(CrossBlock(spec, encoder.embed_dim) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.embed_dim, eps=NORM_EPSILON)
        self.pred = nn.Linear(spec.embed_dim, out_dim)
        initialize(self)

    def forward(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m r p"]:
        """The prediction for each hidden patch, in the order of `mask.removed_index`."""
        return self._predict(encoded, mask.removed_index, grid)

    def everything(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m n p"]:
        """The output at every patch, visible ones first; training only scores hidden patches."""
        return self._predict(encoded, torch.cat([mask.kept_index, mask.removed_index], 1), grid)

    def _predict(
        self, encoded: Encoded, index: Int[Tensor, "m out"], grid: Size
    ) -> Float[Tensor, "m out p"]:
        tokens, memories = self.open(encoded, index, grid)
        for block, memory in zip(self.blocks, memories, strict=True):
            tokens = block(tokens, memory)
        return self.close(tokens)

    def open(
        self, encoded: Encoded, index: Int[Tensor, "m out"], grid: Size
    ) -> tuple[Float[Tensor, "m out e"], Float[Tensor, "depth m t d"]]:
        """The queries, and the memory of each block."""
        positions = resized(self.pos_embed, self.grid, grid, self.resampling)[0, 1:]
        tokens = F.embedding(index, self.mask_token[0] + positions)
        maps = torch.stack([*encoded.taps, torch.cat([encoded.cls, encoded.patches], dim=1)])
        return tokens, torch.einsum("om,m...->o...", self.mixture, maps)

    def close(self, tokens: Float[Tensor, "m out e"]) -> Float[Tensor, "m out p"]:
        """The prediction."""
        return self.pred(self.norm(tokens))
