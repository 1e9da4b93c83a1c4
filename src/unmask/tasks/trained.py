"""The trained part of an encoder: its last half blocks, and the pass through all of them."""

from collections.abc import Callable, Collection
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unmask.encoders.layers import Block, kept_paths
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError


def check_blocks_word(trained_blocks: str) -> None:
    """Raises SettingsError unless it is all, half or a number of blocks."""
    if trained_blocks not in ("all", "half") and not trained_blocks.isdecimal():
        raise SettingsError(
            f"--trained-blocks must be all, half or a number of blocks, got {trained_blocks!r}"
        )


def frozen_halves(trained_blocks: str, depth: int) -> int:
    """Number of frozen half blocks (attention or MLP) from the first on; SettingsError for more blocks than there are."""
    if trained_blocks == "all":
        return 0
    trained = 1 if trained_blocks == "half" else 2 * int(trained_blocks)
    if trained > 2 * depth:
        raise SettingsError(
            f"cannot train {trained_blocks} blocks of an encoder with {depth}; "
            f"--trained-blocks must be all, half, or 0 to {depth}"
        )
    return 2 * depth - trained


def freeze(encoder: VisionTransformer, trained_blocks: str, *, norm: bool) -> None:
    """Freeze all but the trained part; of the final norm `norm` says whether it is used, and so trained."""
    frozen = frozen_halves(trained_blocks, len(encoder.blocks))
    encoder.requires_grad_(trained_blocks == "all")
    for number, block in enumerate(encoder.blocks):
        block = cast(Block, block)
        halves = ((block.norm1, block.attn, block.ls1), (block.norm2, block.mlp, block.ls2))
        for half, parts in enumerate(halves):
            for part in parts:
                part.requires_grad_(2 * number + half >= frozen)
    encoder.norm.requires_grad_(norm and frozen < 2 * len(encoder.blocks))


def drawn_paths(
    drop_path: float, depth: int, frozen: int, images: int, generator: torch.Generator
) -> Float[Tensor, "halves b 1 1"]:
    """See `kept_paths`: rates increase linearly from 0 to `drop_path`; only trained half blocks are skipped."""
    rates = torch.linspace(0, drop_path, depth, device=generator.device).repeat_interleave(2)
    rates[:frozen] = 0
    return kept_paths(rates, images, generator)


def through_blocks(
    encoder: VisionTransformer,
    tokens: Float[Tensor, "b t d"],
    bias: Float[Tensor, "rows heads t t"] | None,
    frozen: int,
    kept: Float[Tensor, "halves b 1 1"] | None,
    *,
    wanted: Collection[int],
    saves_memory: bool = False,
) -> list[Float[Tensor, "b t d"]]:
    """The outputs of the `wanted` blocks, counted from 1, in the order of depth, before any final norm.

    The first `frozen` half blocks keep nothing for the backward pass. With `saves_memory`, the others keep their input
    alone and compute again in the backward pass; nothing in them is random, so the gradients are the same.
    """
    gradients, outputs = torch.is_grad_enabled(), []
    for number in range(2 * len(encoder.blocks)):
        block = cast(Block, encoder.blocks[number // 2])
        half: Callable[[Tensor], Tensor] = (
            block.transform if number % 2 else partial(block.attend, bias=bias)
        )
        learns = gradients and number >= frozen
        with torch.set_grad_enabled(learns):
            if saves_memory and learns:
                update = checkpoint(half, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                update = half(tokens)
            assert isinstance(update, Tensor)
            tokens = tokens + (update if kept is None else update * kept[number])
        if number % 2 and number // 2 + 1 in wanted:
            outputs.append(tokens)
    return outputs
