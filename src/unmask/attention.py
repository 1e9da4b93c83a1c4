"""Multi-head attention, and the table of kernels that compute it."""

from contextlib import nullcontext
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


class AttentionShape(NamedTuple):
    """The shape of an attention for one image, which decides which kernel is fastest."""

    heads: int
    queries: int
    keys: int
    width: int
    """Channels of a head."""


PREFERRED: dict[AttentionShape, list[SDPBackend]] = {}
"""Attention kernels to use for a shape, best first; torch chooses for other shapes.

`training.kernels` measures kernels on the GPU and fills the table during a step only: torch's own choice stays in force for
everything else in the process.
"""


def attend(
    query: Float[Tensor, "m out d"],
    key: Float[Tensor, "m t d"],
    value: Float[Tensor, "m t d"],
    num_heads: int,
    bias: Float[Tensor, "rows heads out t"] | None = None,
) -> Float[Tensor, "m out d"]:
    """Multi-head attention for queries, keys and values that are already projected.

    The bias is added to the attention logits. Its `rows` are m, or 1 for the same bias in all rows.
    """
    query, key, value = (
        tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2) for tokens in (query, key, value)
    )
    if bias is not None:
        bias = bias.to(query.dtype)
    shape = AttentionShape(num_heads, query.shape[2], key.shape[2], query.shape[3])
    # sizes are symbols while a graph is exported, and symbols are no keys
    kernels = PREFERRED.get(shape) if PREFERRED else None
    with sdpa_kernel(kernels, set_priority=True) if kernels else nullcontext():
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return mixed.transpose(1, 2).flatten(2)  # [m heads out d/heads] -> [m out d]
