"""The blocks of a pretrained plain encoder on the map of a large picture, most of them within windows.

"Exploring Plain Vision Transformer Backbones for Object Detection" (Li and others, 2022), section 3, after detectron2's
ViTDet (Apache-2.0). Nothing is added to the encoder, so that its weights are read and saved as ever: the relative
positions are parameters of the wrapper.
"""

from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unmask.attention import attend
from unmask.contracts import Size
from unmask.encoders.layers import Block
from unmask.encoders.vit import VisionTransformer
from unmask.tasks.relative import DecomposedPositions


def global_numbers(depth: int, count: int) -> tuple[int, ...]:
    """The blocks with global attention: the last of each of `count` equal parts, counted from 0."""
    return tuple(-(-part * depth // count) - 1 for part in range(1, count + 1))


class WindowedBlocks(nn.Module):
    """Attention of each block of an encoder: within windows or global, with or without relative positions.

    Args:
        encoder: its blocks are used, and not kept here.
        window: side of a window in patches; None for global attention in all blocks.
        global_blocks: number of blocks with global attention, see `global_numbers`.
        relative: whether each block has relative positions.
        checkpointing: whether activations within blocks are computed again for the backward pass instead of kept.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        window: int | None,
        global_blocks: int,
        relative: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        depth = len(encoder.blocks)
        whole = range(depth) if window is None else global_numbers(depth, global_blocks)
        self.windows = [None if number in whole else window for number in range(depth)]
        self.checkpointing = checkpointing
        self.positions: nn.ModuleList | None = None
        if relative:
            heads = cast(Block, encoder.blocks[0]).attn.num_heads
            grids = (encoder.grid if side is None else Size(side, side) for side in self.windows)
            width = encoder.embed_dim // heads
            self.positions = nn.ModuleList(DecomposedPositions(grid, width) for grid in grids)

    def forward(
        self,
        encoder: VisionTransformer,
        images: Shaped[Tensor, "b c h w"],
        kept: Float[Tensor, "halves b 1 1"] | None = None,
    ) -> Float[Tensor, "b d rows columns"]:
        """The map after the last block, without class tokens and without the final norm.

        `kept` are the factors of stochastic depth from `kept_paths`.
        """
        grid = encoder.mask_grid(Size(*images.shape[-2:]))
        tokens = encoder.embed(images)[:, encoder.class_tokens :]
        for number, block in enumerate(encoder.blocks):
            scales = None if kept is None else kept[2 * number : 2 * number + 2]
            run = partial(self._block, cast(Block, block), number, grid)
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(
                    run, tokens, scales, use_reentrant=False, preserve_rng_state=False
                )
            else:
                tokens = run(tokens, scales)
        return tokens.mT.unflatten(2, tuple(grid))

    def _block(
        self,
        block: Block,
        number: int,
        grid: Size,
        tokens: Float[Tensor, "b n d"],
        scales: Float[Tensor, "2 b 1 1"] | None,
    ) -> Float[Tensor, "b n d"]:
        positions = None if self.positions is None else self.positions[number]
        # a function of its arguments alone, without the number of the block, so that compiled blocks share code
        mix = partial(
            _mixed,
            grid=grid,
            side=self.windows[number],
            heads=block.attn.num_heads,
            projection=block.attn.qkv,
            positions=positions,
        )
        update = block.attend_with(tokens, mix)
        tokens = tokens + (update if scales is None else update * scales[0])
        update = block.transform(tokens)
        return tokens + (update if scales is None else update * scales[1])


def _mixed(
    projected: Float[Tensor, "b n qkv"],
    *,
    grid: Size,
    side: int | None,
    heads: int,
    projection: nn.Module,
    positions: nn.Module | None,
) -> Float[Tensor, "b n d"]:
    """Attention for the queries, keys and values of all patches, within windows of a side or global.

    `projection` is what made them. Its bias is read here, within the block, because a sharded block has it whole only there.
    """
    if side is None:
        return _attended(projected, grid, heads, positions)
    padding = cast(Tensor, projection.bias)
    windows = divided(projected, grid, side, padding.to(projected.dtype))
    return joined(_attended(windows, Size(side, side), heads, positions), grid, side)


def _attended(
    projected: Float[Tensor, "m t qkv"], grid: Size, heads: int, positions: nn.Module | None
) -> Float[Tensor, "m t d"]:
    """Attention among the patches of a grid."""
    query, key, value = projected.chunk(3, dim=-1)
    bias = None if positions is None else positions(query, heads, grid)
    return attend(query, key, value, heads, bias)


def divided(
    tokens: Float[Tensor, "b n e"], grid: Size, side: int, padding: Float[Tensor, " e"]
) -> Float[Tensor, "windows places e"]:
    """The windows of each map, row by row; maps are padded at the right and the bottom to whole windows.

    The padding is what a token of zeros is projected to, as published, and is attended to.
    """
    down, right = (-length % side for length in grid)
    maps = tokens.unflatten(1, tuple(grid))
    if down or right:
        known = F.pad(maps.new_ones(*grid, 1), (0, 0, 0, right, 0, down)).bool()
        maps = torch.where(known, F.pad(maps, (0, 0, 0, right, 0, down)), padding)
    windows = maps.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # [b rows y columns x e]
    return windows.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def joined(
    windows: Float[Tensor, "windows places e"], grid: Size, side: int
) -> Float[Tensor, "b n e"]:
    """The tokens of each map from its windows, without padding: the inverse of `divided`."""
    rows, columns = (-(-length // side) for length in grid)
    maps = windows.unflatten(1, (side, side)).unflatten(0, (-1, rows, columns))
    maps = maps.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # [b padded_height padded_width e]
    return maps[:, : grid.height, : grid.width].flatten(1, 2)
