"""UperNet (Xiao and others, 2018): pyramid pooling on the last map, and a feature pyramid over four."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.spec import sized, within
from unmask.tasks.map_layers import (
    AnyNorms,
    LayerNorms,
    PatchMaps,
    check_blocks,
    convolution,
    four_blocks,
    scorer,
    size_of_map,
    upsampled,
)


@dataclass(frozen=True, kw_only=True)
class UperNet:
    """UperNet on four blocks of a plain ViT, as in MAE (appendix A.4) and BEiT.

    A neck makes a pyramid of the four maps: 4 and 2 times as fine as the patches, as fine, and half as fine. The layers
    are those of mmsegmentation, whose initialisation and dropout of whole channels are followed too. For odd grids the
    coarsest map has one more row and column than there, so that no patch is left out.
    """

    uses_norm: ClassVar[bool] = False
    """Whether the head sees the encoder's final norm of the last block."""

    taps: tuple[int, ...] = ()
    """The four blocks whose outputs are used, counted from 1; empty for every quarter of the depth."""

    channels: int = 256
    """Channels of all layers; published recipes use the width of the encoder."""

    pool_sides: tuple[int, ...] = (1, 2, 3, 6)
    """Sides of the grids that the coarsest map is averaged to."""

    norm: AnyNorms = LayerNorms()
    """Normalisation after each convolution."""

    dropout: float = 0.1
    """Probability of dropping each channel before the last layer."""

    def __post_init__(self) -> None:
        sized(self, "channels")
        within(self, "[0, 1)", "dropout")
        within(self, "[1, inf)", "pool_sides")
        within(self, "[1, inf)", "taps", usual="four blocks counted from 1 in rising order")
        check_blocks(self.taps)

    def blocks(self, depth: int) -> tuple[int, ...]:
        """The blocks whose outputs the head sees, counted from 1."""
        return four_blocks(self.taps, depth)

    def build(self, embed_dim: int, classes: int) -> "UperNetHead":
        """The module, initialised from torch's global generator."""
        return UperNetHead(self, embed_dim, classes)


_LEVELS = 4


class UperNetHead(nn.Module):
    """See `UperNet`."""

    def __init__(self, spec: UperNet, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.channels = channels = spec.channels
        self.neck = PyramidNeck(embed_dim, spec.norm)
        self.pools = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side), *convolution(embed_dim, channels, 1, spec.norm)
            )
            for side in spec.pool_sides
        )
        pooled = embed_dim + len(spec.pool_sides) * channels
        self.bottleneck = convolution(pooled, channels, 3, spec.norm)
        self.laterals, self.smoothing = (
            nn.ModuleList(
                convolution(inputs, channels, side, spec.norm) for _ in range(_LEVELS - 1)
            )
            for inputs, side in ((embed_dim, 1), (channels, 3))
        )
        self.fusion = convolution(_LEVELS * channels, channels, 3, spec.norm)
        self.scorer = scorer(channels, classes)

    def forward(
        self, maps: PatchMaps, kept: Float[Tensor, "b hidden 1 1"] | None = None
    ) -> Float[Tensor, "b classes y x"]:
        """Class scores on a map 4 times as fine as the patches; `kept` are factors on channels."""
        *finer, last = self.neck(maps.patches)
        levels = [lateral(one) for lateral, one in zip(self.laterals, finer, strict=True)]
        levels.append(self.bottleneck(self._pooled(last)))
        for level in range(_LEVELS - 2, -1, -1):  # from coarse to fine
            finer_size = size_of_map(levels[level])
            levels[level] = levels[level] + upsampled(levels[level + 1], finer_size)
        smooth = [layer(one) for layer, one in zip(self.smoothing, levels[:-1], strict=True)]
        finest = size_of_map(smooth[0])
        fused = self.fusion(torch.cat([upsampled(one, finest) for one in [*smooth, levels[-1]]], 1))
        return self.scorer(fused if kept is None else fused * kept)

    def _pooled(self, last: Float[Tensor, "b d y x"]) -> Float[Tensor, "b pooled y x"]:
        """Pyramid pooling (Zhao and others, 2017): the map, and averages over grids of a few sizes."""
        size = size_of_map(last)
        return torch.cat([last, *(upsampled(pool(last), size) for pool in self.pools)], dim=1)


class PyramidNeck(nn.Module):
    """Four maps of patches to a pyramid: 4 times as fine, twice as fine, the same, half as fine (mmsegmentation, BEiT)."""

    def __init__(self, embed_dim: int, norm: AnyNorms) -> None:
        super().__init__()

        def double() -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(embed_dim, embed_dim, 2, stride=2)

        self.fourfold = nn.Sequential(double(), norm.build(embed_dim), nn.GELU(), double())
        self.twofold = double()

    def forward(
        self, maps: tuple[Float[Tensor, "b d y x"], ...]
    ) -> tuple[Float[Tensor, "b d _ _"], ...]:
        """The pyramid, the finest map first."""
        first, second, third, fourth = maps
        half = F.max_pool2d(fourth, 2, ceil_mode=True)  # of one row or column too
        return self.fourfold(first), self.twofold(second), third, half
