"""The parts of a plain Transformer, in timm's names, so that weights move freely."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.errors import SettingsError

NORM_EPSILON = 1e-6


def attend(
    query: Float[Tensor, "m out d"],
    key: Float[Tensor, "m t d"],
    value: Float[Tensor, "m t d"],
    num_heads: int,
) -> Float[Tensor, "m out d"]:
    """Attention of several heads, each on its share of the width, with projections already made."""
    query, key, value = (
        part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)  # [m heads out d/heads] -> [m out d]


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise SettingsError(
                f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}; "
                "ViT uses 64 channels a head"
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Float[Tensor, "m t d"], start: int) -> Float[Tensor, "m out d"]:
        """Attend from the tokens at `start` and after to all tokens."""
        if start == 0:
            return self.mix(*self.qkv(tokens).chunk(3, dim=-1))
        width = tokens.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(tokens[:, start:], weight[:width], bias[:width])
        key, value = F.linear(tokens, weight[width:], bias[width:]).chunk(2, dim=-1)
        return self.mix(query, key, value)

    def mix(
        self,
        query: Float[Tensor, "m out d"],
        key: Float[Tensor, "m t d"],
        value: Float[Tensor, "m t d"],
    ) -> Float[Tensor, "m out d"]:
        """Attend with projections already made."""
        return self.proj(attend(query, key, value, self.num_heads))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t d"]:
        """Each token on its own."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A pre-norm Transformer block."""

    entrances = ("attend", "transform", "project", "finish")

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio))

    def forward(self, tokens: Float[Tensor, "m t d"], start: int = 0) -> Float[Tensor, "m out d"]:
        """The tokens at `start` and after; earlier ones only serve as keys and values."""
        tokens = tokens[:, start:] + self.attn(self.norm1(tokens), start)
        return tokens + self.mlp(self.norm2(tokens))

    def compile(self, *args: Any, **settings: Any) -> None:
        """Compile the block in place, by whichever of its methods it is run; names of weights stay."""
        super().compile(*args, **settings)
        for name in self.entrances:
            setattr(self, name, torch.compile(getattr(self, name), *args, **settings))

    def attend(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t d"]:
        """What the attention half adds to the tokens."""
        return self.attn(self.norm1(tokens), 0)

    def transform(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t d"]:
        """What the MLP half adds to the tokens."""
        return self.mlp(self.norm2(tokens))

    def project(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t qkv"]:
        """Query, key and value of each token: all of a block that looks at one token alone."""
        return self.attn.qkv(self.norm1(tokens))

    def finish(
        self, tokens: Float[Tensor, "m t d"], projected: Float[Tensor, "m t qkv"]
    ) -> Float[Tensor, "m t d"]:
        """The rest of the block, after `project`."""
        tokens = tokens + self.attn.mix(*projected.chunk(3, dim=-1))
        return tokens + self.mlp(self.norm2(tokens))


def initialize(module: nn.Module) -> None:
    """MAE's initialisation of linear layers: Xavier-uniform weights, zero biases.

    The fused query-key-value matrix is drawn as one. Layer norms keep 1 and 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


def drawn_token(embed_dim: int, count: int = 1) -> nn.Parameter:
    """Learned tokens [1 count d] drawn from N(0, 0.02)."""
    return nn.Parameter(torch.empty(1, count, embed_dim).normal_(std=0.02))
