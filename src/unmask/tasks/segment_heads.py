"""Segmentation heads: from maps of patches to class scores on a map, which the task resizes to pixels."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.spec import Kind, within
from unmask.tasks.dpt import DPT
from unmask.tasks.map_layers import AnyNorms, NoNorms, PatchMaps, convolution, scorer
from unmask.tasks.upernet import UperNet


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """A linear layer on the patch tokens of the last block, after the encoder's norm."""

    uses_norm: ClassVar[bool] = True
    """Whether the head sees the encoder's final norm of the last block."""

    norm: AnyNorms = NoNorms()
    """Normalisation of the tokens before the linear layer."""

    readout: Literal["ignore", "append"] = "ignore"
    """Whether the class token (the mean of several) is appended to each patch token."""

    dropout: float = 0.0
    """Probability of dropping each channel before the linear layer."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "dropout")

    def blocks(self, depth: int) -> tuple[int, ...]:
        """The blocks whose outputs the head sees, counted from 1: the last."""
        return (depth,)

    def build(self, embed_dim: int, classes: int) -> "LinearMapHead":
        """The module, initialised from torch's global generator."""
        return LinearMapHead(self, embed_dim, classes)


class LinearMapHead(nn.Module):
    """See `LinearMap`."""

    def __init__(self, spec: LinearMap, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.appends = spec.readout == "append"
        self.channels = embed_dim * (2 if self.appends else 1)
        self.norm = spec.norm.build(self.channels)
        self.scorer = scorer(self.channels, classes)

    def forward(
        self, maps: PatchMaps, kept: Float[Tensor, "b d 1 1"] | None = None
    ) -> Float[Tensor, "b classes y x"]:
        """Class scores of each patch; `kept` are factors on channels, see `map_layers.kept_channels`."""
        (patches,) = maps.patches
        if self.appends:
            (token,) = maps.classes
            token = token[:, :, None, None].expand_as(patches)
            patches = torch.cat([patches, token], dim=1)
        patches = self.norm(patches)
        return self.scorer(patches if kept is None else patches * kept)


class FullyConvolutional(nn.Module):
    """The auxiliary head of published recipes (Zhao and others, 2017): one convolution on one map, and class scores."""

    def __init__(self, embed_dim: int, channels: int, classes: int, norm: AnyNorms) -> None:
        super().__init__()
        self.channels = channels
        self.convolution = convolution(embed_dim, channels, 3, norm)
        self.scorer = scorer(channels, classes)

    def forward(
        self, maps: Float[Tensor, "b d y x"], kept: Float[Tensor, "b hidden 1 1"] | None = None
    ) -> Float[Tensor, "b classes y x"]:
        """Class scores of each position."""
        maps = self.convolution(maps)
        return self.scorer(maps if kept is None else maps * kept)


AnyMapHead = (
    Annotated[LinearMap, Kind("linear")]
    | Annotated[UperNet, Kind("upernet")]
    | Annotated[DPT, Kind("dpt")]
)
