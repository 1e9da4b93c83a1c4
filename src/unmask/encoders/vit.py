"""The plain Vision Transformer (Dosovitskiy and others, 2021) as in MAE (appendix A.1), and with BEiT's blocks.

Pixels of visible patches are gathered before the patch projection, so hidden patches are never computed.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.contracts import Encoded, Size
from unmask.encoders.layers import (
    NORM_EPSILON,
    Block,
    check_heads,
    drawn_token,
    initialize,
    initialize_scaled,
)
from unmask.encoders.positions import (
    RelativeBias,
    TableResampling,
    check_width,
    resized,
    sine_cosine,
)
from unmask.masks import PatchMask
from unmask.patches import filled, gather, normalize, patch_grid, patchify, put_back, size_of
from unmask.spec import EARLIER_DEFAULT, MOST_BLOCKS, Kind, sized, within


@dataclass(frozen=True, kw_only=True)
class PlainBlocks:
    """Pre-norm blocks with all biases, and fixed sine-cosine position embeddings (MAE appendix A.1)."""


@dataclass(frozen=True, kw_only=True)
class BeitBlocks:
    """BEiT's blocks: a relative position bias, shared by all blocks, instead of position embeddings.

    The residual of each half has a learned scale per channel (LayerScale). Queries and values have biases, keys have none
    (Bao and others, 2022, section 2.3 and appendix).
    """

    layer_scale: float = 0.1
    """Initial value of LayerScale: 0.1 for ViT-B, 1e-5 for ViT-L."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "layer_scale", usual="BEiT uses 0.1 for ViT-B")


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
    """Number of class tokens; their mean is the feature of the whole image (Pixio uses several)."""

    blocks: AnyBlocks = PlainBlocks()
    """Kind of Transformer blocks and position encoding."""

    position_resampling: TableResampling = field(
        default="bicubic", metadata={EARLIER_DEFAULT: "antialiased"}
    )
    """How the position tables of encoder and decoder are resampled for images of another size: bicubic as in MAE's
    published code, or antialiased as in timm."""

    def __post_init__(self) -> None:
        sized(self, "patch_size", "embed_dim", "num_heads", "class_tokens")
        sized(self, "depth", most=MOST_BLOCKS)
        within(self, "(0, 1000]", "mlp_ratio", usual="ViT uses 4")
        check_width(self.embed_dim)
        check_heads(self.embed_dim, self.num_heads)

    def fits(self, weights: "ViT", *, any_patches: bool = False) -> bool:
        """Whether weights of another encoder have this shape; `position_resampling` may differ, and the patch size if asked."""
        patch_size = self.patch_size if any_patches else weights.patch_size
        same = replace(weights, position_resampling=self.position_resampling, patch_size=patch_size)
        return same == self

    def build(self, image_size: Size, channels: int, statistics: Statistics) -> "VisionTransformer":
        """The module, initialised from torch's global generator."""
        return VisionTransformer(self, image_size, channels, statistics)


def with_old_resampling(encoder: Any) -> Any:
    """The JSON of an encoder from before `position_resampling` existed, with the resampling of that time."""
    if not isinstance(encoder, dict):
        return encoder
    return {**encoder, "position_resampling": "antialiased"}


# The usual sizes. Ti and S: Touvron and others, "Training data-efficient image transformers" (DeiT, 2021), table 1.
# S to H: MAE section 4 and appendix A.1; B, L and H from Dosovitskiy and others (2021), table 1.
VIT_TI16 = ViT(patch_size=16, embed_dim=192, depth=12, num_heads=3)
VIT_S16 = ViT(patch_size=16, embed_dim=384, depth=12, num_heads=6)
VIT_B16 = ViT(patch_size=16, embed_dim=768, depth=12, num_heads=12)
VIT_L16 = ViT(patch_size=16, embed_dim=1024, depth=24, num_heads=16)
VIT_H14 = ViT(patch_size=14, embed_dim=1280, depth=32, num_heads=16)


class PatchEmbed(nn.Module):
    """The patch projection: the weights of a convolution, applied as one matrix product."""

    def __init__(self, patch_size: int, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, embed_dim, patch_size, patch_size)
        # as published: Xavier over the flattened patch, and torch's own initialisation of the bias
        nn.init.xavier_uniform_(self.proj.weight.view(embed_dim, -1))

    def forward(self, patches: Float[Tensor, "m k p"]) -> Float[Tensor, "m k d"]:
        """Project patches laid out as (row, column, channel)."""
        weight = self.proj.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches, weight, self.proj.bias)


class VisionTransformer(nn.Module):
    """See `ViT`. Parameters have timm's names; mean and standard deviation of the pixels are buffers."""

    fused = ("embed", "embed_visible", "embed_replaced")
    """Methods of many small operations, which are compiled on a GPU."""
    mean: Tensor
    std: Tensor

    def __init__(self, spec: ViT, image_size: Size, channels: int, statistics: Statistics) -> None:
        super().__init__()
        self.patch_size, self.embed_dim, self.channels = spec.patch_size, spec.embed_dim, channels
        self.grid = patch_grid(image_size, spec.patch_size)
        self.position_resampling: TableResampling = spec.position_resampling
        self.register_buffer("mean", statistics.mean.clone())
        self.register_buffer("std", statistics.std.clone())
        self.patch_embed = PatchEmbed(spec.patch_size, channels, spec.embed_dim)
        self.class_tokens = spec.class_tokens
        self.cls_token = drawn_token(spec.embed_dim, spec.class_tokens)
        self.pos_embed: nn.Parameter | None = None
        self.relative: RelativeBias | None = None
        shape = spec.embed_dim, spec.num_heads, spec.mlp_ratio
        if isinstance(spec.blocks, PlainBlocks):
            table = sine_cosine(spec.embed_dim, self.grid).float()[None]
            self.pos_embed = nn.Parameter(table, requires_grad=False)
            self.blocks = nn.ModuleList(Block(*shape) for _ in range(spec.depth))
            initialize(self.blocks)
        else:
            self.relative = RelativeBias(self.grid, spec.num_heads, spec.class_tokens)
            scale = spec.blocks.layer_scale
            self.blocks = nn.ModuleList(Block.scaled(*shape, scale) for _ in range(spec.depth))
            initialize_scaled(self.blocks)
        self.norm = nn.LayerNorm(spec.embed_dim, eps=NORM_EPSILON)

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation of the pixels, per channel."""
        return Statistics(self.mean, self.std)

    def mask_grid(self, size: Size) -> Size:
        """The grid of patches of an image of this size; each patch can be hidden separately."""
        return patch_grid(size, self.patch_size)

    @property
    def layers(self) -> int:
        """Number of layers: the embeddings, the blocks, and the final norm."""
        return len(self.blocks) + 2

    def layer_of(self, parameter_name: str) -> int:
        """0 for embeddings, class tokens and positions; 1 for the first block; the last layer for the final norm."""
        first, _, inner_name = parameter_name.partition(".")
        if first in ("cls_token", "pos_embed", "patch_embed"):
            return 0
        return int(inner_name.partition(".")[0]) + 1 if first == "blocks" else self.layers - 1

    def forward(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """Class tokens, then patch tokens in row-major order, after the final norm; nothing is hidden.

        Images are not normalised before: they are uint8, or floats in the units of `statistics` (0 to 1 for pictures).
        """
        encoded = self.encode(images)
        return torch.cat([encoded.cls, encoded.patches], 1)

    def forward_features(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """`forward` by timm's name; but images are not normalised before."""
        return self(images)

    def encode(
        self,
        images: Shaped[Tensor, "b c h w"],
        paths: Float[Tensor, "halves b 1 1"] | None = None,
        taps: Collection[int] = (),
    ) -> Encoded:
        """Tokens of whole images of any size that the patch size divides; `paths` are factors from `kept_paths`."""
        return self._run(self.embed(images), self.relations(size_of(images)), taps, paths)

    def encode_attending(
        self, images: Shaped[Tensor, "b c h w"], attends: Bool[Tensor, "b t t"]
    ) -> Encoded:
        """As `encode`, for the first t tokens, with an attention mask (query, key)."""
        count = attends.shape[1]
        bias = torch.zeros(attends.shape, device=images.device).masked_fill(~attends, -torch.inf)
        relations = self.relations(size_of(images))
        bias = bias[:, None]
        if relations is not None:
            bias = bias + relations[..., :count, :count]
        return self._run(self.embed(images)[:, :count], bias)

    def embed(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """The input of the first block for whole images: class tokens, then patches, with positions."""
        positions = self._positions(size_of(images))
        patches = normalize(patchify(images, self.patch_size), self.statistics)
        return self._with_cls(self._embed(patches, images) + positions[1:], positions[0])

    def encode_visible(
        self, images: Shaped[Tensor, "b c h w"], mask: PatchMask, taps: Collection[int] = ()
    ) -> Encoded:
        """Tokens of the visible patches, in the order of `mask.kept_index`, and the inputs of the tapped blocks."""
        tokens = self.embed_visible(images, mask.image, mask.kept_index)
        return self._run(tokens, self.relations(size_of(images), mask.kept_index), taps)

    def embed_visible(
        self, images: Shaped[Tensor, "b c h w"], image: Int[Tensor, " m"], index: Int[Tensor, "m k"]
    ) -> Float[Tensor, "m t d"]:
        """The input of the first block for the chosen patches of the chosen images; no other patch is projected."""
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
        """Tokens of all patches in image order, with `token` in place of each hidden patch."""
        tokens = self.embed_replaced(images, mask, token)
        return self._run(tokens, self.relations(size_of(images)), taps)

    def embed_replaced(
        self, images: Shaped[Tensor, "b c h w"], mask: PatchMask, token: Float[Tensor, "1 1 d"]
    ) -> Float[Tensor, "m t d"]:
        """The input of the first block, with `token` in place of each hidden patch.

        Positions are added afterwards, so that the tokens of hidden patches differ.
        """
        positions = self._positions(size_of(images))
        patches = gather(images, mask.image, mask.kept_index, self.patch_size, self.statistics)
        visible = self._embed(patches, images).to(token.dtype)  # autocast projects in bfloat16
        hidden = token.expand(*mask.removed.shape, -1)
        tokens = put_back(hidden, mask.kept_index, visible) + positions[1:]
        return self._with_cls(tokens, positions[0])

    def _embed(
        self, patches: Float[Tensor, "m k p"], images: Shaped[Tensor, "b c h w"]
    ) -> Float[Tensor, "m k d"]:
        """Project patches; missing values, which only floating point images have, count as the mean."""
        return self.patch_embed(filled(patches) if images.is_floating_point() else patches)

    def relations(
        self, size: Size, index: Int[Tensor, "m k"] | None = None
    ) -> Float[Tensor, "rows heads t t"] | None:
        """The bias on attention between all tokens, or class tokens and the patches at `index`; None for plain blocks."""
        if self.relative is None:
            return None
        grid = self.mask_grid(size)
        return self.relative(grid) if index is None else self.relative.among(grid, index)

    def _positions(self, size: Size) -> Float[Tensor, "rows d"]:
        grid = self.mask_grid(size)
        if self.pos_embed is None:
            return self.cls_token.new_zeros(1 + grid.height * grid.width, self.embed_dim)
        return resized(self.pos_embed, self.grid, grid, self.position_resampling)[0]

    def _with_cls(
        self, tokens: Float[Tensor, "m k d"], position: Float[Tensor, " d"]
    ) -> Float[Tensor, "m t d"]:
        cls = (self.cls_token + position).expand(tokens.shape[0], -1, -1)
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
                scales = paths[2 * number : 2 * number + 2]  # of the two halves of this block
                tokens = cast(Block, block).skipping(tokens, *scales, bias)
        if len(self.blocks) in taps:
            tapped.append(tokens)
        tokens = self.norm(tokens)
        return Encoded(
            tokens[:, : self.class_tokens], tokens[:, self.class_tokens :], tuple(tapped)
        )
