"""Attention with projections already made, and which kernel computes it."""

from contextlib import nullcontext
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


class AttentionShape(NamedTuple):
    """Sizes of one image's attention."""

    heads: int
    queries: int
    keys: int
    width: int
    """Channels of a head."""


PREFERRED: dict[AttentionShape, list[SDPBackend]] = {}
"""Attention kernels to take at a shape, best first; torch chooses at others. Filled while a GPU takes a step."""


def attend(
    query: Float[Tensor, "m out d"],
    key: Float[Tensor, "m t d"],
    value: Float[Tensor, "m t d"],
    num_heads: int,
    bias: Float[Tensor, "rows heads out t"] | None = None,
) -> Float[Tensor, "m out d"]:
    """Attention of several heads, each on its share of the width, with projections already made.

    A bias is added to the logarithms of the weights; rows are those of the tokens, or one for all.
    """
    query, key, value = (
        part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (query, key, value)
    )
    if bias is not None:
        bias = bias.to(query.dtype)
    shape = AttentionShape(num_heads, query.shape[2], key.shape[2], query.shape[3])
    kernels = PREFERRED.get(shape)
    with sdpa_kernel(kernels, set_priority=True) if kernels else nullcontext():
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return mixed.transpose(1, 2).flatten(2)  # [m heads out d/heads] -> [m out d]
