"""Layers of a plain Transformer. Parameters have timm's names, so that weights can be exchanged."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.attention import attend
from unmask.errors import SettingsError

NORM_EPSILON = 1e-6


class QueryKeyValue(nn.Module):
    """A fused projection with biases for queries and values (BEiT; a bias of keys would not change attention)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.q_bias = nn.Parameter(torch.zeros(embed_dim))
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))

    @property
    def bias(self) -> Float[Tensor, " qkv"]:
        """The biases of queries, keys and values as one vector; those of keys are 0."""
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def forward(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t qkv"]:
        """Query, key and value of each token."""
        return F.linear(tokens, self.weight, self.bias)


def check_heads(embed_dim: int, num_heads: int) -> None:
    """Raises SettingsError unless the width can be divided among the heads."""
    if embed_dim % num_heads:
        raise SettingsError(
            f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}; "
            "ViT uses 64 channels per head"
        )


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(embed_dim, num_heads)
        self.num_heads = num_heads
        self.qkv: nn.Linear | QueryKeyValue = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        tokens: Float[Tensor, "m t d"],
        start: int,
        bias: Float[Tensor, "rows heads out t"] | None = None,
    ) -> Float[Tensor, "m out d"]:
        """Attend from the tokens from `start` on to all tokens."""
        if start == 0:
            query, key, value = self.qkv(tokens).chunk(3, dim=-1)
            return self.mix(query, key, value, bias)
        width = tokens.shape[-1]
        weight, shift = self.qkv.weight, self.qkv.bias
        query = F.linear(tokens[:, start:], weight[:width], shift[:width])
        key, value = F.linear(tokens, weight[width:], shift[width:]).chunk(2, dim=-1)
        return self.mix(query, key, value, bias)

    def mix(
        self,
        query: Float[Tensor, "m out d"],
        key: Float[Tensor, "m t d"],
        value: Float[Tensor, "m t d"],
        bias: Float[Tensor, "rows heads out t"] | None = None,
    ) -> Float[Tensor, "m out d"]:
        """Attention and output projection, for queries, keys and values that are already projected."""
        return self.proj(attend(query, key, value, self.num_heads, bias))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU in between."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t d"]:
        """Each token separately."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """A learned scale for each channel (Touvron and others, 2021)."""

    def __init__(self, embed_dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dim,), initial))

    def forward(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t d"]:
        """Scale all tokens."""
        return tokens * self.gamma


class Block(nn.Module):
    """A pre-norm Transformer block: an attention half and an MLP half, each with a residual connection."""

    entrances = ("attend", "attend_with", "transform", "project", "finish", "skipping")
    """Methods that are called from outside like `forward`, so they must be compiled and registered with FSDP too."""

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio))
        self.ls1: nn.Module = nn.Identity()
        self.ls2: nn.Module = nn.Identity()

    @classmethod
    def scaled(cls, embed_dim: int, num_heads: int, mlp_ratio: float, initial: float) -> "Block":
        """BEiT's block: with LayerScale, and biases only for queries and values."""
        block = cls(embed_dim, num_heads, mlp_ratio)
        block.attn.qkv = QueryKeyValue(embed_dim)
        block.ls1, block.ls2 = LayerScale(embed_dim, initial), LayerScale(embed_dim, initial)
        return block

    def forward(
        self,
        tokens: Float[Tensor, "m t d"],
        start: int = 0,
        bias: Float[Tensor, "rows heads out t"] | None = None,
    ) -> Float[Tensor, "m out d"]:
        """The tokens from `start` on; earlier ones only serve as keys and values."""
        tokens = tokens[:, start:] + self.ls1(self.attn(self.norm1(tokens), start, bias))
        return tokens + self.transform(tokens)

    def compile(self, *args: Any, **settings: Any) -> None:
        """Compile `forward` and the other entrances in place; names of weights do not change."""
        super().compile(*args, **settings)
        for name in self.entrances:
            setattr(self, name, torch.compile(getattr(self, name), *args, **settings))

    def attend(
        self,
        tokens: Float[Tensor, "m t d"],
        bias: Float[Tensor, "rows heads t t"] | None = None,
    ) -> Float[Tensor, "m t d"]:
        """The residual of the attention half."""
        return self.ls1(self.attn(self.norm1(tokens), 0, bias))

    def attend_with(
        self,
        tokens: Float[Tensor, "m t d"],
        mix: Callable[[Float[Tensor, "m t qkv"]], Float[Tensor, "m t d"]],
    ) -> Float[Tensor, "m t d"]:
        """The residual of the attention half with another attention: `mix` gets query, key and value of each token."""
        return self.ls1(self.attn.proj(mix(self.attn.qkv(self.norm1(tokens)))))

    def transform(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t d"]:
        """The residual of the MLP half."""
        return self.ls2(self.mlp(self.norm2(tokens)))

    def skipping(
        self,
        tokens: Float[Tensor, "m t d"],
        attention_scale: Float[Tensor, "m 1 1"],
        mlp_scale: Float[Tensor, "m 1 1"],
        bias: Float[Tensor, "rows heads t t"] | None = None,
    ) -> Float[Tensor, "m t d"]:
        """The block with stochastic depth: the residual of each half is multiplied by a number per image."""
        tokens = tokens + self.attend(tokens, bias) * attention_scale
        return tokens + self.transform(tokens) * mlp_scale

    def project(self, tokens: Float[Tensor, "m t d"]) -> Float[Tensor, "m t qkv"]:
        """Query, key and value of each token: the part of a block before tokens are mixed."""
        return self.attn.qkv(self.norm1(tokens))

    def finish(
        self, tokens: Float[Tensor, "m t d"], projected: Float[Tensor, "m t qkv"]
    ) -> Float[Tensor, "m t d"]:
        """The part of the block after `project`."""
        tokens = tokens + self.ls1(self.attn.mix(*projected.chunk(3, dim=-1)))
        return tokens + self.transform(tokens)


def kept_paths(
    rates: Float[Tensor, " halves"], images: int, generator: torch.Generator
) -> Float[Tensor, "halves b 1 1"]:
    """Stochastic depth (Huang and others, 2016): the factor on the residual of each half block for each image.

    `rates` are the probabilities that a half is skipped. The factor is then 0, else 1 / (1 - rate), so that the mean is 1.
    """
    noise = torch.rand(images, len(rates), generator=generator, device=generator.device)
    return ((noise >= rates) / (1 - rates)).T[:, :, None, None]


def initialize(module: nn.Module) -> None:
    """MAE's initialisation of linear layers: Xavier-uniform weights and zero biases.

    The fused query-key-value matrix is initialised as one matrix. Layer norms keep weight 1 and bias 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


def initialize_scaled(blocks: nn.ModuleList) -> None:
    """BEiT's initialisation: truncated normal weights (0.02) and zero biases, with smaller residuals in later blocks.

    The last matrix of each half of block l, counted from 1, is divided by sqrt(2 l).
    """
    for number, block in enumerate(blocks, start=1):
        assert isinstance(block, Block)
        for part in block.modules():
            if isinstance(part, nn.Linear | QueryKeyValue):
                nn.init.trunc_normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
        for last in (block.attn.proj, block.mlp.fc2):
            last.weight.data.div_(math.sqrt(2 * number))


def drawn_token(embed_dim: int, count: int = 1) -> nn.Parameter:
    """Learned tokens [1 count d], initialised from N(0, 0.02)."""
    return drawn_normal(1, count, embed_dim, std=0.02)


def drawn_normal(*shape: int, std: float) -> nn.Parameter:
    """A parameter of this shape, initialised from a normal distribution around 0."""
    values = torch.empty(shape)
    # on the meta device torch would import its compiler for this, which takes seconds
    return nn.Parameter(values if values.is_meta else values.normal_(std=std))
