"""From visible tokens to guesses for the hidden patches."""

import math
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.attention import attend
from unmask.contracts import Encoded, Size
from unmask.encoders.layers import NORM_EPSILON, Block, Mlp, drawn_token, initialize
from unmask.encoders.positions import check_width, resized, sine_cosine
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import taken
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
        _check_shape(self.depth, self.embed_dim, "MAE uses 8")

    def build(self, encoder: VisionTransformer, out_dim: int) -> "MaskTokenDecoder":
        """The module, for the tokens of visible patches and guesses of `out_dim` values."""
        return MaskTokenDecoder(self, encoder, out_dim)

    def build_for_all(self, encoder: VisionTransformer, out_dim: int) -> "TokenDecoder":
        """The module without a mask token, for an encoder that gives a token of every patch."""
        return TokenDecoder(self, encoder, out_dim)


@dataclass(frozen=True, kw_only=True)
class CrossAttentionDecoder:
    """CrossMAE's decoder (Fu, Lian and others, TMLR 2025): hidden patches look at visible ones, not at each other.

    A query for each patch to rebuild, its mask token and position, passes through blocks of
    cross-attention and MLP. Each block has keys and values of its own: a learned mixture of the inputs of
    all encoder blocks and of the encoder's output. Patches are rebuilt one by one, so that
    any part of them can be left out (`MAE.predicted`).
    """

    embed_dim: int = 512
    """Width of the queries."""

    depth: int = 12
    """Number of blocks (12 as published; with 1 it still reaches 83.0 % on ImageNet-1K)."""

    num_heads: int = 16
    """Attention heads; must divide embed_dim."""

    mlp_ratio: float = 4.0
    """Width of the hidden layer of each MLP, relative to embed_dim."""

    def __post_init__(self) -> None:
        _check_shape(self.depth, self.embed_dim, "CrossMAE uses 12")
        if self.embed_dim % self.num_heads:
            raise SettingsError(
                f"the decoder's embed_dim must be a multiple of num_heads, got {self.embed_dim} and "
                f"{self.num_heads}"
            )

    def build(self, encoder: VisionTransformer, out_dim: int) -> "CrossDecoder":
        """The module, for the tokens of an encoder and guesses of `out_dim` values."""
        return CrossDecoder(self, encoder, out_dim)


@dataclass(frozen=True, kw_only=True)
class LinearDecoder:
    """One linear layer, for encoders that see mask tokens and so do the decoding themselves (BEiT; SimMIM)."""

    def build_for_all(self, encoder: VisionTransformer, out_dim: int) -> "LinearPrediction":
        """The module, for guesses of `out_dim` values."""
        return LinearPrediction(encoder, out_dim)


def _check_shape(depth: int, embed_dim: int, usual: str) -> None:
    if depth < 1:
        raise SettingsError(f"the decoder's depth must be at least 1, got {depth}; {usual}")
    check_width(embed_dim)


AnyDecoder = (
    Annotated[SelfAttentionDecoder, Kind("self-attention")]
    | Annotated[CrossAttentionDecoder, Kind("cross-attention")]
    | Annotated[LinearDecoder, Kind("linear")]
)


class MaskTokenDecoder(nn.Module):
    """See `SelfAttentionDecoder`.

    Tokens are never put back into image order; the first block's projections of hidden tokens, equal
    in all images, are made once for each place; the last block and the prediction are computed for
    hidden patches alone. The same mathematics as the paper's, with less work.
    """

    taps = range(0)
    fused = ("open", "close")

    def __init__(
        self, spec: SelfAttentionDecoder, encoder: VisionTransformer, out_dim: int
    ) -> None:
        super().__init__()
        self.grid = encoder.grid
        self.embed = nn.Linear(encoder.embed_dim, spec.embed_dim)
        self.mask_token = drawn_token(spec.embed_dim)
        table = sine_cosine(spec.embed_dim, encoder.grid).float()[None]
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
        tokens = self.open(encoded, mask, grid)
        for block in self.blocks[1:-1]:
            tokens = block(tokens)
        return self.close(tokens, start)

    def open(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m t e"]:
        """What the second block sees, or the only one: visible tokens, then hidden ones."""
        positions = resized(self.pos_embed, self.grid, grid)[0]
        places = positions[1:]
        seen = self.embed(torch.cat([encoded.cls, encoded.patches], dim=1))
        classes = encoded.cls.shape[1]
        seen = torch.cat(
            [seen[:, :classes] + positions[0], seen[:, classes:] + places[mask.kept_index]], dim=1
        )
        hidden = self.mask_token[0] + places  # [n e]: a hidden token depends on its place alone
        tokens = torch.cat([seen, F.embedding(mask.removed_index, hidden)], dim=1)
        if len(self.blocks) == 1:
            return tokens
        first = cast(Block, self.blocks[0])
        everywhere = first.project(hidden[None])[0]  # [n qkv], once for all images
        projected = F.embedding(mask.removed_index, everywhere)
        return first.finish(tokens, torch.cat([first.project(seen), projected], dim=1))

    def close(self, tokens: Float[Tensor, "m t e"], start: int) -> Float[Tensor, "m out p"]:
        """The last block and the prediction, for the tokens at `start` and after."""
        return self.pred(self.norm(self.blocks[-1](tokens, start)))


class TokenDecoder(nn.Module):
    """See `SelfAttentionDecoder`: the same without a mask token, over a token of every patch.

    Hidden tokens come last, so that the last block and the prediction are computed for them alone.
    """

    taps = range(0)
    fused = ("open", "close")

    def __init__(
        self, spec: SelfAttentionDecoder, encoder: VisionTransformer, out_dim: int
    ) -> None:
        super().__init__()
        self.grid = encoder.grid
        self.embed = nn.Linear(encoder.embed_dim, spec.embed_dim)
        table = sine_cosine(spec.embed_dim, encoder.grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth)
        )
        self.norm = nn.LayerNorm(spec.embed_dim, eps=NORM_EPSILON)
        self.pred = nn.Linear(spec.embed_dim, out_dim)
        initialize(self)

    def forward(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m r p"]:
        """A guess for each hidden patch, in the order of `mask.removed_index`."""
        return self._run(encoded, mask, grid, start=encoded.cls.shape[1] + mask.kept_index.shape[1])

    def everything(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m n p"]:
        """The output at every patch, visible ones first; only those of hidden patches were trained."""
        return self._run(encoded, mask, grid, start=encoded.cls.shape[1])

    def _run(
        self, encoded: Encoded, mask: PatchMask, grid: Size, start: int
    ) -> Float[Tensor, "m out p"]:
        tokens = self.open(encoded, mask, grid)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.close(tokens, start)

    def open(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m t e"]:
        """What the first block sees: the tokens of visible patches, then of hidden ones."""
        positions = resized(self.pos_embed, self.grid, grid)[0]
        order = torch.cat([mask.kept_index, mask.removed_index], dim=1)
        tokens = self.embed(torch.cat([encoded.cls, taken(encoded.patches, order)], dim=1))
        classes = encoded.cls.shape[1]
        return torch.cat(
            [tokens[:, :classes] + positions[0], tokens[:, classes:] + positions[1:][order]], dim=1
        )

    def close(self, tokens: Float[Tensor, "m t e"], start: int) -> Float[Tensor, "m out p"]:
        """The last block and the prediction, for the tokens at `start` and after."""
        return self.pred(self.norm(self.blocks[-1](tokens, start)))


class LinearPrediction(nn.Module):
    """See `LinearDecoder`. Weights start as truncated normal draws (0.02), as in BEiT."""

    taps = range(0)

    def __init__(self, encoder: VisionTransformer, out_dim: int) -> None:
        super().__init__()
        self.pred = nn.Linear(encoder.embed_dim, out_dim)
        nn.init.trunc_normal_(self.pred.weight, std=0.02)
        nn.init.zeros_(self.pred.bias)

    def forward(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m r p"]:
        """A guess for each hidden patch, in the order of `mask.removed_index`."""
        return self.pred(taken(encoded.patches, mask.removed_index))

    def everything(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m n p"]:
        """The output at every patch, visible ones first; only those of hidden patches were trained."""
        order = torch.cat([mask.kept_index, mask.removed_index], dim=1)
        return self.pred(taken(encoded.patches, order))


class CrossBlock(nn.Module):
    """Queries attend to a memory, then pass an MLP; pre-norm, the memory with a norm of its own."""

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
        """The queries after one look at the memory."""
        key, value = self.key_value(self.norm_memory(memory)).chunk(2, dim=-1)
        mixed = attend(self.query(self.norm1(tokens)), key, value, self.num_heads)
        tokens = tokens + self.proj(mixed)
        return tokens + self.mlp(self.norm2(tokens))


class CrossDecoder(nn.Module):
    """See `CrossAttentionDecoder`.

    The last of the mixed maps is the encoder's output after its final norm, so that this norm is trained;
    the others are taken as they are. Mixtures start as draws from N(0, 1 / maps), so that a memory has the
    size of a map. Memory has no positions of the decoder's: the encoder's tokens bear theirs.
    """

    fused = ("open", "close")

    def __init__(
        self, spec: CrossAttentionDecoder, encoder: VisionTransformer, out_dim: int
    ) -> None:
        super().__init__()
        self.grid = encoder.grid
        self.taps = range(len(encoder.blocks))
        self.mask_token = drawn_token(spec.embed_dim)
        table = sine_cosine(spec.embed_dim, encoder.grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        maps = len(encoder.blocks) + 1
        self.mixture = nn.Parameter(torch.empty(spec.depth, maps).normal_(std=1 / math.sqrt(maps)))
        self.blocks = nn.ModuleList(CrossBlock(spec, encoder.embed_dim) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.embed_dim, eps=NORM_EPSILON)
        self.pred = nn.Linear(spec.embed_dim, out_dim)
        initialize(self)

    def forward(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m r p"]:
        """A guess for each hidden patch, in the order of `mask.removed_index`."""
        return self._guess(encoded, mask.removed_index, grid)

    def everything(self, encoded: Encoded, mask: PatchMask, grid: Size) -> Float[Tensor, "m n p"]:
        """The output at every patch, visible ones first; only those of hidden patches were trained."""
        return self._guess(encoded, torch.cat([mask.kept_index, mask.removed_index], 1), grid)

    def _guess(
        self, encoded: Encoded, index: Int[Tensor, "m out"], grid: Size
    ) -> Float[Tensor, "m out p"]:
        tokens, memories = self.open(encoded, index, grid)
        for block, memory in zip(self.blocks, memories, strict=True):
            tokens = block(tokens, memory)
        return self.close(tokens)

    def open(
        self, encoded: Encoded, index: Int[Tensor, "m out"], grid: Size
    ) -> tuple[Float[Tensor, "m out e"], Float[Tensor, "depth m t d"]]:
        """The queries, and each block's memory."""
        places = resized(self.pos_embed, self.grid, grid)[0, 1:]
        tokens = F.embedding(index, self.mask_token[0] + places)
        maps = torch.stack([*encoded.taps, torch.cat([encoded.cls, encoded.patches], dim=1)])
        return tokens, torch.einsum("om,m...->o...", self.mixture, maps)

    def close(self, tokens: Float[Tensor, "m out e"]) -> Float[Tensor, "m out p"]:
        """The prediction."""
        return self.pred(self.norm(tokens))
