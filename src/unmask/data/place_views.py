"""Two looks of a map's tile, as two drones might take them: for objectives that learn places."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.data.geometry import resize
from unmask.data.relighting import in_season, relit, uniform
from unmask.randomness import generator
from unmask.spec import within

_LOOKS = 2


@dataclass(frozen=True, kw_only=True)
class TwoLooks:
    """Two looks of the same ground: turned, scaled, tilted, in other light and another season, and a little apart.

    Both lie within the tile. They share a direction, drawn from the whole circle, and differ from it by a few degrees: pictures
    are located in every direction that may be right, so vectors must tell directions apart.
    """

    most_turn: float = 12.0
    """Degrees by which a look is turned from the shared direction, at most: half a step of the directions that are tried."""

    smallest_side: float = 0.6
    """Smallest side of a look, as a share of the largest upright square of its direction in the tile."""

    most_scale: float = 1.25
    """Largest ratio of the sides of the two looks."""

    shift: float = 0.25
    """Largest distance of the middles of the two looks across and down, in sides of a look."""

    tilt: float = 0.05
    """How far a corner is moved, at most, in sides of a look: the perspective of a camera that does not look straight down."""

    relight: bool = True
    """Whether light, season, blur and noise differ."""

    def __post_init__(self) -> None:
        within(self, "[0, 180]", "most_turn")
        within(self, "(0, 1]", "smallest_side")
        within(self, "[1, inf)", "most_scale")
        within(self, "[0, 1]", "shift")
        within(self, "[0, 0.2]", "tilt")

    def sizes(self, size: Size) -> tuple[Size, ...]:
        """Size of both looks in pixels."""
        return (size,) * _LOOKS

    def footprints(self, *key: int) -> Float[Tensor, "2 4 2"]:
        """The corners of both looks in the tile, clockwise from a look's top left; x and y from 0 to 1, a function of the key."""
        random = generator("cpu", "looks", *key)
        direction = uniform(random, 0, 360)
        first = uniform(random, self.smallest_side, 1)
        ratio = math.exp(uniform(random, -1, 1) * math.log(self.most_scale))
        second = min(1.0, max(self.smallest_side, first * ratio))
        middle, looks = torch.zeros(2), list[Tensor]()
        for number, share in enumerate((first, second)):
            turn = math.radians(direction + uniform(random, -self.most_turn, self.most_turn))
            reach = abs(math.cos(turn)) + abs(math.sin(turn))  # of a turned square of side 1
            side = share / reach
            free = (1 - side * reach) / 2
            drawn = 2 * torch.rand(2, generator=random) - 1
            middle = (middle + drawn * side * self.shift) if number else drawn * free
            middle = middle.clamp(-free, free)
            moved = (2 * torch.rand(4, 2, generator=random) - 1) * self.tilt * side
            looks.append((0.5 + middle + _square(turn) * side + moved).clamp(0, 1))
        return torch.stack(looks)

    def __call__(
        self, image: Shaped[Tensor, "c h w"], size: Size, *key: int
    ) -> tuple[Shaped[Tensor, "c new_h new_w"], ...]:
        """Both looks, a function of the key."""
        looks: list[Tensor] = []
        for number, corners in enumerate(self.footprints(*key)):
            look = seen(image, corners, size)
            if self.relight:
                random = generator("cpu", "light", number, *key)
                look = relit(in_season(look, random), random)
            looks.append(look)
        return tuple(looks)


def _square(turn: float) -> Float[Tensor, "4 2"]:
    """The corners of a square of side 1 around the origin, turned clockwise."""
    corners = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    cos, sin = math.cos(turn), math.sin(turn)
    return corners @ torch.tensor([[cos, sin], [-sin, cos]])


def seen(
    image: Shaped[Tensor, "c h w"], corners: Float[Tensor, "4 2"], size: Size
) -> Shaped[Tensor, "c new_h new_w"]:
    """What lies between four corners of an image, from 0 to 1, drawn as a rectangle: a projective map."""
    image = _reduced(image, corners, size)
    y, x = torch.meshgrid(
        (torch.arange(size.height) + 0.5) / size.height,
        (torch.arange(size.width) + 0.5) / size.width,
        indexing="ij",
    )
    ahead = torch.stack([x, y, torch.ones_like(x)], -1) @ projection(corners).T.float()
    points = ahead[..., :2] / ahead[..., 2:]
    shown = F.grid_sample(
        image[None].float(), 2 * points[None] - 1, padding_mode="reflection", align_corners=False
    )[0]
    return shown.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else shown


def projection(corners: Float[Tensor, "4 2"]) -> Float[Tensor, "3 3"]:
    """The matrix that takes the corners of the unit square, clockwise from (0, 0), to others, in homogeneous coordinates."""
    unit = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    rows: list[Tensor] = []
    for (u, v), (x, y) in zip(unit.tolist(), corners.tolist(), strict=True):
        rows.append(torch.tensor([u, v, 1, 0, 0, 0, -u * x, -v * x], dtype=torch.float64))
        rows.append(torch.tensor([0, 0, 0, u, v, 1, -u * y, -v * y], dtype=torch.float64))
    solved = torch.linalg.solve(torch.stack(rows), corners.double().flatten())
    return torch.cat([solved, torch.ones(1, dtype=torch.float64)]).view(3, 3)


def _reduced(
    image: Shaped[Tensor, "c h w"], corners: Float[Tensor, "4 2"], size: Size
) -> Shaped[Tensor, "c new_h new_w"]:
    """The image at about the scale of the look, so that sampling leaves out nothing; never enlarged."""
    whole = Size(*image.shape[-2:])
    pixels = corners * torch.tensor([whole.width, whole.height])
    across = float((pixels[1] - pixels[0]).norm() + (pixels[2] - pixels[3]).norm()) / 2
    factor = size.width / max(across, 1.0)
    if factor >= 1:
        return image
    return resize(image, Size(*(max(1, round(side * factor)) for side in whole)))
