"""Layers of dense heads, which work on maps [b c h w]."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.encoders.layers import NORM_EPSILON


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each place of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Each place separately."""
        places = maps.movedim(1, -1)
        normed = F.layer_norm(places, self.weight.shape, self.weight, self.bias, NORM_EPSILON)
        return normed.movedim(-1, 1)


def projected(channels: int, out_channels: int) -> nn.Sequential:
    """Convolutions 1 x 1, to the new width, and 3 x 3, each without bias and followed by a norm (ViTDet)."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, bias=False),
        ChannelNorm(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        ChannelNorm(out_channels),
    )
