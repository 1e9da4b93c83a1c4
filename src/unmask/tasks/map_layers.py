"""Layers of segmentation heads: maps [b d y x] of patches, their normalisation, and dropout of whole channels."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.encoders.joint_sums import joint_sum
from unmask.errors import SettingsError
from unmask.spec import Kind
from unmask.tasks.dense_layers import ChannelNorm

_EPSILON = 1e-5  # of batch normalisation, as torch's default
_MOMENTUM = 0.1  # share of a batch in the running averages, as torch's default
_LEAST_IMAGES = 4


class PatchMaps(NamedTuple):
    """What a head sees: the outputs of some blocks of the encoder, in the order of depth."""

    patches: tuple[Float[Tensor, "b d y x"], ...]
    """The patch tokens of each block on their grid."""
    classes: tuple[Float[Tensor, "b d"], ...]
    """The class token of each block (the mean of several)."""


@dataclass(frozen=True, kw_only=True)
class NoNorms:
    """No normalisation."""

    least_images: ClassVar[int] = 1
    """How many images must be normalised together."""

    def build(self, channels: int) -> nn.Module:
        """The module."""
        return nn.Identity()


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Layer normalisation over the channels of each position: the same for any number of images in a batch."""

    least_images: ClassVar[int] = 1
    """How many images must be normalised together."""

    def build(self, channels: int) -> "ChannelNorm":
        """The module."""
        return ChannelNorm(channels)


@dataclass(frozen=True, kw_only=True)
class BatchNorms:
    """Batch normalisation over the images of all processes, as in published segmentation recipes.

    Each micro-batch is normalised by itself. So results depend on the micro-batch, and too few images give noisy
    statistics; a group, the micro-batches of all processes together, must hold at least four images.
    """

    least_images: ClassVar[int] = _LEAST_IMAGES
    """How many images must be normalised together."""

    def build(self, channels: int) -> "JointBatchNorm":
        """The module."""
        return JointBatchNorm(channels)


AnyNorms = (
    Annotated[LayerNorms, Kind("layer")]
    | Annotated[BatchNorms, Kind("batch")]
    | Annotated[NoNorms, Kind("none")]
)


class JointBatchNorm(nn.Module):
    """See `BatchNorms`; in evaluation it uses running averages, in which all processes agree."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._joined = False

    def join(self) -> None:
        """From now on, normalise over the images of all processes, which have equally many."""
        self._joined = True

    def forward(self, maps: Float[Tensor, "b d y x"]) -> Float[Tensor, "b d y x"]:
        """Normalise each channel over images and positions; a single value per channel by the running averages."""
        if self.training and self._joined:
            return self._jointly(maps)
        several = maps.numel() > maps.shape[1]
        return F.batch_norm(
            maps,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training and several,
            momentum=_MOMENTUM,
            eps=_EPSILON,
        )

    def _jointly(self, maps: Float[Tensor, "b d y x"]) -> Float[Tensor, "b d y x"]:
        """The same over the images of all processes."""
        mean = self._mean(maps)
        variance = self._mean((maps - mean[:, None, None]).square())
        count = dist.get_world_size() * maps.numel() // maps.shape[1]
        with torch.no_grad():  # the average of the unbiased variance, as in torch
            self.running_mean.lerp_(mean, _MOMENTUM)
            self.running_var.lerp_(variance * (count / max(1, count - 1)), _MOMENTUM)
        scale = self.weight * (variance + _EPSILON).rsqrt()
        return torch.addcmul((self.bias - mean * scale)[:, None, None], maps, scale[:, None, None])

    def _mean(self, maps: Float[Tensor, "b d y x"]) -> Float[Tensor, " d"]:
        """Of each channel, over all processes, which have equally many values."""
        return joint_sum(maps.mean((0, 2, 3))) / dist.get_world_size()


def convolution(inputs: int, outputs: int, side: int, norm: AnyNorms) -> nn.Sequential:
    """A convolution that keeps the size, normalisation and ReLU; the convolution has a bias if nothing is normalised.

    Initialised as in mmsegmentation (He and others, 2015, "fan out").
    """
    bias = isinstance(norm, NoNorms)
    layer = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, norm.build(outputs), nn.ReLU())


def scorer(channels: int, classes: int) -> nn.Conv2d:
    """The last layer of a head: class scores of each position, near zero at first, as in mmsegmentation."""
    layer = nn.Conv2d(channels, classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def kept_channels(
    rate: float, images: int, channels: int, generator: torch.Generator
) -> Float[Tensor, "b d 1 1"]:
    """Dropout of whole channels (Tompson and others, 2015): factors 0, or 1 / (1 - rate), for each image and channel."""
    noise = torch.rand(images, channels, generator=generator, device=generator.device)
    return ((noise >= rate) / (1 - rate))[:, :, None, None]


def four_blocks(chosen: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The chosen blocks, or the last of every quarter of an encoder with `depth` blocks, counted from 1.

    Raises:
        SettingsError: unless the last chosen block is the last of the encoder; blocks after it would not be trained.
    """
    blocks = chosen or tuple(max(1, depth * quarter // 4) for quarter in range(1, 5))
    if blocks[-1] != depth:
        raise SettingsError(
            f"taps must end with the last block of the encoder, which has {depth}, got {blocks[-1]}; "
            "leave taps out for the last of every quarter"
        )
    return blocks


def check_blocks(chosen: tuple[int, ...]) -> None:
    """Raises SettingsError unless four blocks are chosen in the order of depth, or none."""
    if chosen and (len(chosen) != 4 or list(chosen) != sorted(chosen) or chosen[0] < 1):
        raise SettingsError(
            f"taps must be four blocks counted from 1 in rising order, such as 3 6 9 12, got {chosen}"
        )


def size_of_map(maps: Float[Tensor, "b d y x"]) -> tuple[int, int]:
    """Height and width."""
    return maps.shape[2], maps.shape[3]


def upsampled(
    maps: Float[Tensor, "b d y x"], size: tuple[int, int], *, corners: bool = False
) -> Float[Tensor, "b d h w"]:
    """Bilinear interpolation to another size, with or without aligned corners."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=corners)
