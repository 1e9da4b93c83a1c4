"""The plain Vision Transformer (Dosovitskiy and others, 2021) as MAE uses it (appendix A.1), and with BEiT's blocks.

Hidden patches never enter: kept pixels are gathered first, and only they are projected.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.contracts import Encoded, Size
from unmask.encoders.layers import (
    NORM_EPSILON,
    Block,
    drawn_token,
    initialize,
    initialize_scaled,
)
from unmask.encoders.positions import check_width, resized, sine_cosine
from unmask.encoders.relative import RelativeBias
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import filled, gather, normalize, patch_grid, patchify, put_back, size_of
from unmask.spec import Kind


@dataclass(frozen=True, kw_only=True)
class PlainBlocks:
    """Pre-norm blocks with all biases; fixed sine-cosine positions are added to the tokens (MAE appendix A.1)."""


@dataclass(frozen=True, kw_only=True)
class BeitBlocks:
    """BEiT's: instead of positions a learned bias on attention for how far apart patches are, shared by all blocks.

    What each half adds is multiplied channel by channel by learned numbers; queries and values have biases, keys
    none (Bao and others, 2022, section 2.3 and appendix).
    """

    layer_scale: float = 0.1
    """What these numbers start at: 0.1 for ViT-B, 1e-5 for ViT-L."""

    def __post_init__(self) -> None:
        if not self.layer_scale > 0:
            raise SettingsError(f"layer_scale must be above 0, got {self.layer_scale}")


AnyBlocks = Annotated[PlainBlocks, Kind("plain")] | Annotated[BeitBlocks, Kind("beit")]


@dataclass(frozen=True, kw_only=True)
class ViT:
    """A Vision Transformer with class tokens."""

    patch_size: int = 16
    """Side of a patch in pixels."""

    embed_dim: int = 768
    """Width of the tokens."""

    depth: int = 12
    """Number of Transformer blocks."""

    num_heads: int = 12
    """Attention heads in each block; must divide embed_dim."""

    mlp_ratio: float = 4.0
    """Width of the hidden layer of each MLP, relative to embed_dim."""

    class_tokens: int = 1
    """Tokens that stand for no patch; their mean is the feature of the whole image (Pixio uses several)."""

    blocks: AnyBlocks = PlainBlocks()
    """How blocks are built, and how tokens know their places."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "embed_dim", "depth", "num_heads", "class_tokens"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_width(self.embed_dim)

    def build(self, image_size: Size, channels: int, statistics: Statistics) -> "VisionTransformer":
        """The module, drawn from torch's global generator."""
        return VisionTransformer(self, image_size, channels, statistics)


class PatchEmbed(nn.Module):
    """Patches to tokens: a convolution's weights, applied as one matrix product."""

    def __init__(self, patch_size: int, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, embed_dim, patch_size, patch_size)
        nn.init.xavier_uniform_(self.proj.weight.view(embed_dim, -1))  # the bias keeps torch's draw

    def forward(self, patches: Float[Tensor, "m k p"]) -> Float[Tensor, "m k d"]:
        """Project patches laid out as (row, column, channel)."""
        weight = self.proj.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches, weight, self.proj.bias)


def _block(spec: ViT) -> Block:
    shape = spec.embed_dim, spec.num_heads, spec.mlp_ratio
    if isinstance(spec.blocks, PlainBlocks):
        return Block(*shape)
    return Block.scaled(*shape, spec.blocks.layer_scale)


class VisionTransformer(nn.Module):
    """See `ViT`. Parameter names are timm's; mean and deviation of the pixels travel as buffers."""

    fused = ("embed", "embed_visible", "embed_replaced")
    mean: Tensor
    std: Tensor

    def __init__(self, spec: ViT, image_size: Size, channels: int, statistics: Statistics) -> None:
        super().__init__()
        self.patch_size, self.embed_dim, self.channels = spec.patch_size, spec.embed_dim, channels
        self.grid = patch_grid(image_size, spec.patch_size)
        self.register_buffer("mean", statistics.mean.clone())
        self.register_buffer("std", statistics.std.clone())
        self.patch_embed = PatchEmbed(spec.patch_size, channels, spec.embed_dim)
        self.class_tokens = spec.class_tokens
        self.cls_token = drawn_token(spec.embed_dim, spec.class_tokens)
        self.pos_embed: nn.Parameter | None = None
        self.relative: RelativeBias | None = None
        if isinstance(spec.blocks, PlainBlocks):
            table = sine_cosine(spec.embed_dim, self.grid).float()[None]
            self.pos_embed = nn.Parameter(table, requires_grad=False)
        else:
            self.relative = RelativeBias(self.grid, spec.num_heads, spec.class_tokens)
        self.blocks = nn.ModuleList(_block(spec) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.embed_dim, eps=NORM_EPSILON)
        if isinstance(spec.blocks, PlainBlocks):
            initialize(self.blocks)
        else:
            initialize_scaled(self.blocks)

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation of the pixels, per channel."""
        return Statistics(self.mean, self.std)

    def mask_grid(self, size: Size) -> Size:
        """The grid of patches of an image of this size; each can be hidden on its own."""
        return patch_grid(size, self.patch_size)

    @property
    def layers(self) -> int:
        """Embeddings, blocks, and what comes after them."""
        return len(self.blocks) + 2

    def layer_of(self, parameter_name: str) -> int:
        """0 for embeddings, tokens and positions; 1 for the first block; the last for the final norm."""
        first, _, rest = parameter_name.partition(".")
        if first in ("cls_token", "pos_embed", "patch_embed"):
            return 0
        return int(rest.partition(".")[0]) + 1 if first == "blocks" else self.layers - 1

    def encode(
        self,
        images: Shaped[Tensor, "b c h w"],
        paths: Float[Tensor, "halves b 1 1"] | None = None,
        taps: Collection[int] = (),
    ) -> Encoded:
        """Tokens of whole images of any size that the patch divides; `paths` are of `kept_paths`."""
        return self._run(self.embed(images), self.relations(size_of(images)), taps, paths)

    def encode_attending(
        self, images: Shaped[Tensor, "b c h w"], attends: Bool[Tensor, "b t t"]
    ) -> Encoded:
        """As `encode`, of the first t tokens, each (the first of a pair) looking only at those that it may."""
        count = attends.shape[1]
        bias = torch.zeros(attends.shape, device=images.device).masked_fill(~attends, -torch.inf)
        relations = self.relations(size_of(images))
        bias = (
            bias[:, None] if relations is None else bias[:, None] + relations[..., :count, :count]
        )
        return self._run(self.embed(images)[:, :count], bias)

    def embed(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """What the first block sees of whole images: class tokens, then patches, positions added."""
        positions = self._positions(size_of(images))
        patches = normalize(patchify(images, self.patch_size), self.statistics)
        return self._with_cls(self._embed(patches, images) + positions[1:], positions[0])

    def encode_visible(
        self, images: Shaped[Tensor, "b c h w"], mask: PatchMask, taps: Collection[int] = ()
    ) -> Encoded:
        """Tokens of the kept patches, in the order of `mask.kept_index`; inputs of the tapped blocks."""
        tokens = self.embed_visible(images, mask.image, mask.kept_index)
        return self._run(tokens, self.relations(size_of(images), mask.kept_index), taps)

    def embed_visible(
        self, images: Shaped[Tensor, "b c h w"], image: Int[Tensor, "m"], index: Int[Tensor, "m k"]
    ) -> Float[Tensor, "m t d"]:
        """What the first block sees of the chosen patches of the chosen images; no others are projected."""
        positions = self._positions(size_of(images))
        patches = gather(images, image, index, self.patch_size, self.statistics)
        tokens = self._embed(patches, images) + positions[1:][index]
        return self._with_cls(tokens, positions[0])

    def encode_replaced(
        self,
        images: Shaped[Tensor, "b c h w"],
        mask: PatchMask,
        token: Float[Tensor, "1 1 d"],
        taps: Collection[int] = (),
    ) -> Encoded:
        """Tokens of all patches in image order, `token` in place of each hidden one; inputs of the tapped blocks."""
        tokens = self.embed_replaced(images, mask, token)
        return self._run(tokens, self.relations(size_of(images)), taps)

    def embed_replaced(
        self, images: Shaped[Tensor, "b c h w"], mask: PatchMask, token: Float[Tensor, "1 1 d"]
    ) -> Float[Tensor, "m t d"]:
        """What the first block sees, `token` in place of each hidden patch.

        Positions are added afterwards, so that hidden patches are told apart by their places.
        """
        positions = self._positions(size_of(images))
        patches = gather(images, mask.image, mask.kept_index, self.patch_size, self.statistics)
        kept = self._embed(patches, images).to(token.dtype)  # autocast projects in bfloat16
        hidden = token.expand(*mask.removed.shape, -1)
        tokens = put_back(hidden, mask.kept_index, kept) + positions[1:]
        return self._with_cls(tokens, positions[0])

    def _embed(
        self, patches: Float[Tensor, "m k p"], images: Shaped[Tensor, "b c h w"]
    ) -> Float[Tensor, "m k d"]:
        """Project patches; what is missing from images of floating point counts as the mean."""
        return self.patch_embed(filled(patches) if images.is_floating_point() else patches)

    def relations(
        self, size: Size, index: Int[Tensor, "m k"] | None = None
    ) -> Float[Tensor, "rows heads t t"] | None:
        """The bias on attention in images of this size, between all patches or those at `index`; None for plain blocks."""
        if self.relative is None:
            return None
        grid = self.mask_grid(size)
        return self.relative(grid) if index is None else self.relative.among(grid, index)

    def _positions(self, size: Size) -> Float[Tensor, "rows d"]:
        grid = self.mask_grid(size)
        if self.pos_embed is None:
            return self.cls_token.new_zeros(1 + grid.height * grid.width, self.embed_dim)
        return resized(self.pos_embed, self.grid, grid)[0]

    def _with_cls(
        self, tokens: Float[Tensor, "m k d"], position: Float[Tensor, "d"]
    ) -> Float[Tensor, "m t d"]:
        cls = (self.cls_token + position).expand(len(tokens), -1, -1)
        return torch.cat([cls, tokens], dim=1)

    def _run(
        self,
        tokens: Float[Tensor, "m t d"],
        bias: Float[Tensor, "rows heads t t"] | None,
        taps: Collection[int] = (),
        paths: Float[Tensor, "halves m 1 1"] | None = None,
    ) -> Encoded:
        tapped: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            if number in taps:
                tapped.append(tokens)
            if paths is None:
                tokens = block(tokens, 0, bias)
            else:
                kept = paths[2 * number : 2 * number + 2]
                tokens = cast(Block, block).skipping(tokens, *kept, bias)
        if len(self.blocks) in taps:
            tapped.append(tokens)
        tokens = self.norm(tokens)
        return Encoded(
            tokens[:, : self.class_tokens], tokens[:, self.class_tokens :], tuple(tapped)
        )
