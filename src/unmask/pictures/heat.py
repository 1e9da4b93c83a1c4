"""Heat maps over pictures."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unmask.pictures.sheet import to_rgb

_OPAQUE = 0.75  # of the hottest places
# black-body colours without black: transparent, yellow, orange, red, dark red
_COLORS = ((1.0, 1.0, 0.6), (1.0, 0.8, 0.1), (1.0, 0.45, 0.0), (0.85, 0.0, 0.05), (0.5, 0.0, 0.15))
_EDGE = (0.0, 0.75, 1.0)  # of a region that is known


def with_heat(
    picture: Float[Tensor, "c h w"], heat: Float[Tensor, "h w"]
) -> Float[Tensor, "3 h w"]:
    """The picture in grey under heat from 0, which is not drawn, to 1."""
    grey = _rgb(picture).mean(0)
    colors = torch.tensor(_COLORS)
    place = heat.clamp(0, 1) * (len(colors) - 1)
    below = place.floor().long().clamp(max=len(colors) - 2)
    share = (place - below)[..., None]
    painted = (1 - share) * colors[below] + share * colors[below + 1]
    opaque = (heat.clamp(0, 1) * 2).clamp(max=1) * _OPAQUE
    return opaque * painted.permute(2, 0, 1) + (1 - opaque) * grey


def with_edges(
    picture: Float[Tensor, "c h w"], region: Float[Tensor, "h w"]
) -> Float[Tensor, "3 h w"]:
    """The picture with the edge of a region of 0 and 1 around it."""
    padded = F.max_pool2d(region[None, None].float(), 5, 1, 2)[0, 0]
    edge = (padded > 0) & (region <= 0)
    color = torch.tensor(_EDGE)[:, None, None]
    return torch.where(edge, color, _rgb(picture))


def _rgb(picture: Float[Tensor, "c h w"]) -> Float[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(to_rgb(picture))).permute(2, 0, 1) / 255
