"""Discrete codes of a trained tokenizer as the target: an autoencoder with finite scalar quantisation.

After Mentzer, Minnen, Agustsson and Tschannen (2023, "Finite scalar quantization: VQ-VAE made simple"): each patch gets a
few numbers, each bounded and rounded to one of a few levels. The combination of levels is the code. There is no codebook
that could collapse. BEiT (section 2.1) and MAE (table 1d) use the codes of a discrete VAE instead.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.contracts import Batch, Loss, Size
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import (
    denormalize,
    filled,
    gather,
    normalize,
    patch_grid,
    patchify,
    size_of,
)
from unmask.spec import MOST_BLOCKS, sized
from unmask.targets.pixels import Levels, squared_error
from unmask.targets.tokens import code_errors, known_codes

LEAST_CODES = 16
_MOST_CODES = 65_536

_OLD_NAMES = {
    "inwards.": "encoder.",
    "spread.": "to_width.",
    "outwards.": "decoder.",
    "paint.": "to_pixels.",
    "places": "strides",
}
"""What the names of a tokenizer's tensors began with in checkpoints until version 0.1, and what they begin with now."""


@dataclass(frozen=True, kw_only=True)
class ScalarTokenizer:
    """An encoder from a patch to one of `codes` codes, and a decoder from a grid of codes to an image.

    The code of a patch depends only on its own pixels, so codes of visible patches reveal nothing about hidden ones. The
    decoder also uses neighbouring patches. Each dimension has 8 or 4 levels, so that every power of two is possible; the
    paper's tables mix 5 to 8.
    """

    codes: int = 512
    """Number of codes: a power of two from 16 to 65,536."""

    width: int = 256
    """Number of channels of the hidden layers."""

    depth: int = 2
    """Number of residual blocks in the encoder, and in the decoder."""

    def __post_init__(self) -> None:
        if not LEAST_CODES <= self.codes <= _MOST_CODES or self.codes.bit_count() != 1:
            near = 2 ** round(math.log2(min(max(self.codes, LEAST_CODES), _MOST_CODES)))
            raise SettingsError(
                f"codes must be a power of two between {LEAST_CODES} and {_MOST_CODES:,}, got {self.codes}; "
                f"the nearest is {near}"
            )
        sized(self, "width")
        sized(self, "depth", most=MOST_BLOCKS)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of levels of each dimension of a code: 8 in the first ones, then 4 (512 is 8 x 8 x 8)."""
        bits = self.codes.bit_length() - 1
        dimensions = -(-bits // 3)
        eights = bits - 2 * dimensions
        return (8,) * eights + (4,) * (dimensions - eights)

    def build(self, patch_size: int, channels: int, statistics: Statistics) -> "PatchTokenizer":
        """The module, initialised from torch's global generator."""
        return PatchTokenizer(self, patch_size, channels, statistics)


class PatchBlock(nn.Module):
    """A residual MLP block on each patch separately."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, patches: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Each patch separately."""
        return patches + self.fc2(F.gelu(self.fc1(self.norm(patches))))


class GridBlock(nn.Module):
    """A residual convolution block on each patch of a grid and its eight neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, grid: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """The grid after this block."""
        return grid + self.conv2(F.gelu(self.conv1(self.norm(grid))))


class PatchTokenizer(nn.Module):
    """See `ScalarTokenizer`. Mean and standard deviation of its training pixels are buffers."""

    mean: Tensor
    std: Tensor
    levels: Tensor
    strides: Tensor
    """By how much the number of a code grows with one level in each dimension."""

    def __init__(
        self, spec: ScalarTokenizer, patch_size: int, channels: int, statistics: Statistics
    ) -> None:
        super().__init__()
        self.patch_size, self.channels, self.codes = patch_size, channels, spec.codes
        values, width, dimensions = patch_size**2 * channels, spec.width, len(spec.levels)
        self.register_buffer("mean", statistics.mean.clone())
        self.register_buffer("std", statistics.std.clone())
        levels = torch.tensor(spec.levels)
        self.register_buffer("levels", levels)
        self.register_buffer("strides", levels.cumprod(0) // levels)
        self.encoder = nn.Sequential(
            nn.Linear(values, width),
            *(PatchBlock(width) for _ in range(spec.depth)),
            nn.LayerNorm(width),
            nn.Linear(width, dimensions),
        )
        self.to_width = nn.Linear(dimensions, width)
        self.decoder = nn.Sequential(*(GridBlock(width) for _ in range(spec.depth)))
        self.to_pixels = nn.Linear(width, values)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any, **options: Any
    ) -> None:
        """Accept checkpoints with old names; torch calls this for every module that it loads."""
        renamed = current_names(state_dict, prefix)
        state_dict.clear()
        state_dict.update(renamed)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation of the pixels, per channel."""
        return Statistics(self.mean, self.std)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean squared error of whole images rebuilt from their codes; nothing is random."""
        patches = normalize(patchify(batch.images, self.patch_size), self.statistics)
        grid = patch_grid(size_of(batch.images), self.patch_size)
        rebuilt = self.decode(rounded(self.bounded(filled(patches)), self.levels), grid)
        return Loss(squared_error(rebuilt, patches).mean(), {})

    def bounded(self, patches: Float[Tensor, "*b p"]) -> Float[Tensor, "*b q"]:
        """The encoder's numbers for each patch, bounded by plus and minus half the number of levels."""
        return self.encoder(patches).tanh() * self.levels / 2

    def codes_of(self, patches: Float[Tensor, "*b p"]) -> Int[Tensor, "*b"]:
        """The code of each patch; patches are normalised by `statistics` and have no missing values."""
        level = rounded(self.bounded(patches), self.levels) + (self.levels - 1) / 2  # from 0
        return (level.round().long() * self.strides).sum(-1)

    def values_of(self, codes: Int[Tensor, "*b"]) -> Float[Tensor, "*b q"]:
        """The rounded numbers of each code."""
        level = codes[..., None] // self.strides % self.levels
        return level - (self.levels - 1) / 2

    def decode(self, values: Float[Tensor, "b n q"], grid: Size) -> Float[Tensor, "b n p"]:
        """Normalised patches from the rounded numbers of a whole grid."""
        hidden = self.to_width(values / (self.levels / 2))
        hidden = hidden.transpose(1, 2).unflatten(2, tuple(grid))  # [b width rows columns]
        return self.to_pixels(self.decoder(hidden).flatten(2).transpose(1, 2))


def current_names(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a tokenizer under today's names; `prefix` is where it sits in the module that was saved.

    Optimizer states, named PARAMETER:KEY, are renamed too. Other names stay as they are.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_NAMES.items():
            if name.startswith(f"{prefix}{old}"):
                name = f"{prefix}{new}{name[len(prefix) + len(old) :]}"
                break
        renamed[name] = tensor
    return renamed


def rounded(values: Float[Tensor, "*b q"], levels: Int[Tensor, " q"]) -> Float[Tensor, "*b q"]:
    """Round each number to the middle of its interval of width 1; gradients pass through unchanged.

    This is the paper's equation for an even number of levels, except that the outermost intervals are as wide as the
    others.
    """
    middle = torch.minimum(values.floor() + 0.5, (levels - 1) / 2)
    return values + (middle - values).detach()


@dataclass(frozen=True, kw_only=True)
class TokenizerCodes:
    """The code that a trained tokenizer gives to each hidden patch.

    The tokenizer is read before the first step and saved with the run's weights, so the run does not need its folder
    afterwards.
    """

    path: str
    """Run folder of `unmask tokenizer`."""

    tokenizer: ScalarTokenizer = ScalarTokenizer()
    """Shape of the tokenizer; `unmask pretrain` reads it from the folder."""

    def build(self, patch_size: int, channels: int) -> "CodeTarget":
        """The target for patches of this size; `take` must load the tokenizer's weights."""
        return CodeTarget(self, patch_size, channels)


class CodeTarget(nn.Module):
    """See `TokenizerCodes`. The tokenizer is frozen."""

    gives_levels = True
    loss = staticmethod(code_errors)
    present: Tensor
    """1 if the tokenizer's weights are loaded, else 0."""

    def __init__(self, spec: TokenizerCodes, patch_size: int, channels: int) -> None:
        super().__init__()
        self.patch_size, self.path, self.out_dim = patch_size, spec.path, spec.tokenizer.codes
        unknown = Statistics(torch.zeros(channels), torch.ones(channels))
        self.tokenizer = spec.tokenizer.build(patch_size, channels, unknown).requires_grad_(False)
        self.register_buffer("present", torch.zeros(()))

    @property
    def complete(self) -> bool:
        """Whether the tokenizer's weights are loaded."""
        return bool(self.present > 0)

    def take(self, weights: dict[str, Tensor]) -> None:
        """Load a tokenizer's weights; its shape must be that of the spec."""
        self.tokenizer.load_state_dict(weights)
        self.present.fill_(1.0)

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r 1"]:
        """The code of each hidden patch; NaN if all values of a patch are missing."""
        patches = self._patches(images, mask.image, mask.removed_index)
        return known_codes(self._codes(patches), patches, images)

    def pixels(
        self,
        prediction: Float[Tensor, "m n codes"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The decoded image of the most likely codes of hidden patches and the true codes of visible ones."""
        visible = self._codes(self._patches(images, mask.image, mask.kept_index))
        codes = prediction.argmax(-1).scatter(1, mask.kept_index, visible)
        grid = patch_grid(size_of(images), self.patch_size)
        patches = self.tokenizer.decode(self.tokenizer.values_of(codes), grid)
        return normalize(denormalize(patches, self.tokenizer.statistics), statistics)

    def _patches(self, images: Tensor, image: Tensor, index: Tensor) -> Float[Tensor, "m k p"]:
        return gather(images, image, index, self.patch_size, self.tokenizer.statistics)

    def _codes(self, patches: Float[Tensor, "m k p"]) -> Int[Tensor, "m k"]:
        """In float32 whatever the precision of the run, so that codes depend only on the pixels."""
        with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
            return self.tokenizer.codes_of(filled(patches))
