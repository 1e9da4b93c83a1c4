"""The simple feature pyramid: maps of several scales from the last map of a plain encoder (Li and others, 2022, section 3).

Written after the paper and detectron2's configuration of ViTDet (Apache-2.0).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.tasks.dense_layers import ChannelNorm, projected

SCALES = (4.0, 2.0, 1.0, 0.5, 0.25)
"""Size of each level relative to the encoder's map: strides 4 to 64 for patches of 16 pixels."""


class SimplePyramid(nn.Module):
    """Four maps at 4, 2, 1 and 1/2 times the resolution of the encoder's map, and every second place of the last.

    Larger maps come from deconvolutions, the smaller one from max-pooling. Nothing is added between levels.
    """

    def __init__(self, embed_dim: int, channels: int) -> None:
        super().__init__()
        half, quarter = embed_dim // 2, embed_dim // 4
        self.fourfold = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, half, 2, 2),
            ChannelNorm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
            projected(quarter, channels),
        )
        self.twofold = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, half, 2, 2), projected(half, channels)
        )
        self.same = projected(embed_dim, channels)
        # rounds up, so that a map of one place has a half too; equal to the published floor for even maps
        self.halved = nn.Sequential(
            nn.MaxPool2d(2, 2, ceil_mode=True), projected(embed_dim, channels)
        )

    def forward(self, maps: Float[Tensor, "b d h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        """The levels, finest first; see `SCALES`."""
        levels = [self.fourfold(maps), self.twofold(maps), self.same(maps), self.halved(maps)]
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]
