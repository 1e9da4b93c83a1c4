"""Other light, season and camera for a picture from above, for any number of channels."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

_REACH = 2  # pixels of a blur to each side
_SEASON = 0.08
"""Standard deviation of the shares of other channels in a channel: plants and soil change their colours."""


def uniform(random: torch.Generator, low: float, high: float) -> float:
    """A number between two others."""
    return low + (high - low) * float(torch.rand((), generator=random))


def relit(image: Shaped[Tensor, "c h w"], random: torch.Generator) -> Shaped[Tensor, "c h w"]:
    """Other brightness, contrast, gamma and colour, blur and noise; values that are not bytes only get a gain and noise."""

    def drawn(low: float, high: float) -> float:
        return uniform(random, low, high)

    noise = torch.randn(image.shape, generator=random)
    if image.dtype != torch.uint8:
        spread = image[~image.isnan()].std()
        return image * drawn(0.8, 1.25) + noise * spread * drawn(0, 0.1)
    values = (image.float() / 255) ** drawn(0.7, 1.4)
    values = values * drawn(0.8, 1.2) + drawn(-0.1, 0.1)
    tint = torch.tensor([drawn(0.9, 1.1) for _ in image])[:, None, None]
    lit = blurred(values * tint, drawn(0.3, 1.2)) + noise * drawn(0, 0.04)
    return (lit * 255).round().clamp(0, 255).to(torch.uint8)


def blurred(image: Float[Tensor, "c h w"], deviation: float) -> Float[Tensor, "c h w"]:
    """A Gaussian blur of 5 x 5 pixels, down and then across: a fifth of the time of torchvision's convolution."""
    taps = torch.exp(-0.5 * (torch.arange(-_REACH, _REACH + 1) / deviation) ** 2)
    taps = (taps / taps.sum()).tolist()
    height, width = image.shape[1:]
    padded = F.pad(image[None], (_REACH,) * 4, mode="reflect")[0]
    down = sum(tap * padded[:, i : i + height] for i, tap in enumerate(taps))
    assert isinstance(down, Tensor)
    across = sum(tap * down[:, :, i : i + width] for i, tap in enumerate(taps))
    assert isinstance(across, Tensor)
    return across


def in_season(image: Shaped[Tensor, "c h w"], random: torch.Generator) -> Shaped[Tensor, "c h w"]:
    """The same ground in another season: each channel with a little of the others, whose differences it takes on."""
    count = len(image)
    mixing = torch.randn(count, count, generator=random) * _SEASON
    mixing = torch.eye(count) + mixing - torch.diag(mixing.sum(1))  # grey stays grey
    mixed = torch.einsum("ij,jhw->ihw", mixing, image.float())
    return mixed.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else mixed
