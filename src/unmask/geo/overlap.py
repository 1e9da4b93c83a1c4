"""Which four-cornered pieces of ground overlap, and by how much."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_POINTS = 24
"""Points a side by which areas are compared; the error of a share is about a hundredth."""

Corners = Float[Tensor, "n 4 2"]
"""Convex; in order, in any unit. Computed in 32 bits also under autocast: places tens of thousands of pixels away need them."""


def overlapping(first: Corners, second: Float[Tensor, "m 4 2"]) -> Bool[Tensor, "n m"]:
    """Whether pieces have some ground in common; those that only touch have not.

    Exact: convex shapes are apart if a line along a side of one of them parts them (the separating axis theorem). Only pairs
    whose circles touch are looked at.
    """
    first, second = first.float(), second.float()
    middles = [corners.mean(1) for corners in (first, second)]
    radii = [
        (corners - middle[:, None]).norm(dim=-1).amax(1)
        for corners, middle in zip((first, second), middles, strict=True)
    ]
    apart = (middles[0][:, None] - middles[1]).norm(dim=-1)
    near = apart < radii[0][:, None] + radii[1]
    rows, columns = near.nonzero(as_tuple=True)
    here = middles[0][
        rows, None
    ]  # far from an origin, products of coordinates would lose the digits that count
    one, other = first[rows] - here, second[columns] - here
    sides = torch.cat([one.roll(-1, 1) - one, other.roll(-1, 1) - other], 1)  # [k 8 2]
    across = torch.stack([-sides[..., 1], sides[..., 0]], -1)
    with torch.autocast(first.device.type, enabled=False):
        shadows = [torch.einsum("kad,kcd->kac", across, corners) for corners in (one, other)]
    meet = (shadows[0].amax(-1) > shadows[1].amin(-1)) & (shadows[1].amax(-1) > shadows[0].amin(-1))
    common = torch.zeros_like(near)
    common[rows, columns] = meet.all(1)
    return common


def shared(first: Corners, second: Corners) -> Float[Tensor, " n"]:
    """The area that each pair has in common, divided by the area that both cover together."""
    here = first.float().mean(1, keepdim=True)
    first, second = first.float() - here, second.float() - here
    areas = _area(first), _area(second)
    common = (_inside(first, second) * areas[0] + _inside(second, first) * areas[1]) / 2
    return common / (areas[0] + areas[1] - common)


def _area(corners: Corners) -> Float[Tensor, " n"]:
    """By the shoelace formula."""
    x, y = corners.unbind(-1)
    return ((x * y.roll(-1, 1) - y * x.roll(-1, 1)).sum(1) / 2).abs()


def _inside(first: Corners, second: Corners) -> Float[Tensor, " n"]:
    """The share of points of the first that lie in the second."""
    along = (torch.arange(_POINTS, device=first.device) + 0.5) / _POINTS
    v, u = torch.meshgrid(along, along, indexing="ij")
    weights = torch.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], -1).flatten(0, 1)
    with torch.autocast(first.device.type, enabled=False):
        points = weights @ first  # [n points 2]
    from_corner = points[:, :, None] - second[:, None]
    sides = (second.roll(-1, 1) - second)[:, None]
    turns = sides[..., 0] * from_corner[..., 1] - sides[..., 1] * from_corner[..., 0]
    return ((turns > 0).all(-1) | (turns < 0).all(-1)).float().mean(1)
