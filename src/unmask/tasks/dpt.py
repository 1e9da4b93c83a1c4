"""DPT, the dense prediction transformer (Ranftl and others, 2021): four maps fused from coarse to fine by convolutions."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.errors import SettingsError
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
class DPT:
    """DPT's segmentation head on four blocks of a plain ViT, as in transformers, with dropout of whole channels."""

    uses_norm: ClassVar[bool] = False
    """Whether the head sees the encoder's final norm of the last block."""

    taps: tuple[int, ...] = ()
    """The four blocks whose outputs are used, counted from 1; empty for every quarter of the depth."""

    channels: int = 256
    """Channels of the fused maps."""

    map_channels: tuple[int, ...] = (96, 192, 384, 768)
    """Channels of the four maps before they are fused, the finest first."""

    readout: Literal["ignore", "project"] = "project"
    """What becomes of the class token: nothing, or it is appended to each patch token and both are projected."""

    norm: AnyNorms = LayerNorms()
    """Normalisation before the last layer."""

    dropout: float = 0.1
    """Probability of dropping each channel before the last layer."""

    def __post_init__(self) -> None:
        sized(self, "channels")
        within(self, "[0, 1)", "dropout")
        within(self, "[1, inf)", "map_channels")
        within(self, "[1, inf)", "taps", usual="four blocks counted from 1 in rising order")
        check_blocks(self.taps)
        if len(self.map_channels) != 4:
            raise SettingsError(
                f"map_channels must be four numbers from 1 on, such as 96 192 384 768, got {self.map_channels}"
            )

    def blocks(self, depth: int) -> tuple[int, ...]:
        """The blocks whose outputs the head sees, counted from 1."""
        return four_blocks(self.taps, depth)

    def build(self, embed_dim: int, classes: int) -> "DPTHead":
        """The module, initialised from torch's global generator."""
        return DPTHead(self, embed_dim, classes)


class DPTHead(nn.Module):
    """See `DPT`."""

    def __init__(self, spec: DPT, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.channels = channels = spec.channels
        self.reassembled = nn.ModuleList(
            Reassemble(embed_dim, width, scale, projects=spec.readout == "project")
            for width, scale in zip(spec.map_channels, (4, 2, 1, 0.5), strict=True)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(width, channels, 3, padding=1, bias=False) for width in spec.map_channels
        )
        self.fusions = nn.ModuleList(Fusion(channels, joins=number > 0) for number in range(4))
        self.convolution = convolution(channels, channels, 3, spec.norm)
        self.scorer = scorer(channels, classes)

    def forward(
        self, maps: PatchMaps, kept: Float[Tensor, "b hidden 1 1"] | None = None
    ) -> Float[Tensor, "b classes y x"]:
        """Class scores on a map 16 times as fine as the patches; `kept` are factors on channels."""
        inputs = zip(self.reassembled, self.narrow, maps.patches, maps.classes, strict=True)
        levels = [narrow(reassemble(one, token)) for reassemble, narrow, one, token in inputs]
        fused = None
        for fusion, level in zip(
            self.fusions, reversed(levels), strict=True
        ):  # from coarse to fine
            fused = fusion(level, fused)
        fused = self.convolution(fused)
        return _doubled(self.scorer(fused if kept is None else fused * kept))


class Reassemble(nn.Module):
    """A map of patches at another scale, with the class token projected into it or not."""

    def __init__(self, embed_dim: int, width: int, scale: float, *, projects: bool) -> None:
        super().__init__()
        self.readout = nn.Linear(2 * embed_dim, embed_dim) if projects else None
        self.project = nn.Conv2d(embed_dim, width, 1)
        self.resize: nn.Module = nn.Identity()
        if scale > 1:
            self.resize = nn.ConvTranspose2d(width, width, int(scale), stride=int(scale))
        elif scale < 1:
            self.resize = nn.Conv2d(width, width, 3, stride=int(1 / scale), padding=1)

    def forward(
        self, maps: Float[Tensor, "b d y x"], token: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b width _ _"]:
        """The map of a block, and its class token."""
        if self.readout is not None:
            pairs = torch.cat([maps, token[:, :, None, None].expand_as(maps)], dim=1)
            maps = F.gelu(self.readout(pairs.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.resize(self.project(maps))


class Fusion(nn.Module):
    """Add a map to the coarser fused one, and make the result twice as fine; the coarsest has nothing to join."""

    def __init__(self, channels: int, *, joins: bool) -> None:
        super().__init__()
        self.level = Residual(channels) if joins else None
        self.fused = Residual(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(
        self, level: Float[Tensor, "b d y x"], fused: Float[Tensor, "b d fy fx"] | None
    ) -> Float[Tensor, "b d _ _"]:
        """Fuse; a map of another size, which odd grids give, is resized first."""
        if fused is not None and self.level is not None:
            if size_of_map(level) != size_of_map(fused):
                level = upsampled(level, size_of_map(fused))
            level = fused + self.level(level)
        return self.project(_doubled(self.fused(level)))


class Residual(nn.Module):
    """Two convolutions with ReLU before each, and a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, maps: Float[Tensor, "b d y x"]) -> Float[Tensor, "b d y x"]:
        """The map with what the convolutions add."""
        return maps + self.second(self.first(maps.relu()).relu())


def _doubled(maps: Float[Tensor, "b d y x"]) -> Float[Tensor, "b d _ _"]:
    """Twice as fine, with aligned corners."""
    height, width = size_of_map(maps)
    return upsampled(maps, (2 * height, 2 * width), corners=True)
