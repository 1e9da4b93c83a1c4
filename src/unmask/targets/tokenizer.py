"""Discrete codes of a trained tokenizer as the target: an autoencoder with finite scalar quantisation.

After Mentzer, Minnen, Agustsson and Tschannen (2023, "Finite scalar quantization: VQ-VAE made simple"): a few numbers
for each patch, each squashed and rounded to a few levels; which levels they are is the code. There is no
codebook, so none can collapse. BEiT (section 2.1) and MAE (table 1d) take the codes of a discrete VAE instead.
"""

import math
from dataclasses import dataclass

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
from unmask.targets.pixels import Levels, squared_error
from unmask.targets.tokens import code_errors, known_codes

LEAST_CODES = 16
_MOST_CODES = 65_536


@dataclass(frozen=True, kw_only=True)
class ScalarTokenizer:
    """A patch to one of `codes` numbers, and a grid of these back to a picture.

    The code of a patch depends on its own pixels alone: codes of visible patches tell nothing of hidden ones. The way
    back looks at neighbours. Levels are 8 or 4 in every dimension, so that any power of two can be had; the paper's
    own tables mix 5 to 8.
    """

    codes: int = 512
    """How many there are: a power of two, 16 to 65,536."""

    width: int = 256
    """Channels inside."""

    depth: int = 2
    """Residual blocks on either side of the code."""

    def __post_init__(self) -> None:
        if not LEAST_CODES <= self.codes <= _MOST_CODES or self.codes.bit_count() != 1:
            near = 2 ** round(math.log2(min(max(self.codes, LEAST_CODES), _MOST_CODES)))
            raise SettingsError(
                f"codes must be a power of two between {LEAST_CODES} and {_MOST_CODES:,}, got {self.codes}; "
                f"the nearest is {near}"
            )
        for name in ("width", "depth"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def levels(self) -> tuple[int, ...]:
        """How many values each dimension of a code has: 8 in the first ones, then 4 (512 is 8 x 8 x 8)."""
        bits = self.codes.bit_length() - 1
        dimensions = -(-bits // 3)
        eights = bits - 2 * dimensions
        return (8,) * eights + (4,) * (dimensions - eights)

    def build(self, patch_size: int, channels: int, statistics: Statistics) -> "PatchTokenizer":
        """The module, drawn from torch's global generator."""
        return PatchTokenizer(self, patch_size, channels, statistics)


class Alone(nn.Module):
    """A residual block on each patch by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, patches: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Each on its own."""
        return patches + self.fc2(F.gelu(self.fc1(self.norm(patches))))


class Among(nn.Module):
    """A residual block on each patch of a grid and its eight neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, grid: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """The grid as it was, plus what the neighbours add."""
        return grid + self.conv2(F.gelu(self.conv1(self.norm(grid))))


class PatchTokenizer(nn.Module):
    """See `ScalarTokenizer`. Mean and deviation of the pixels it was trained on are its own buffers."""

    mean: Tensor
    std: Tensor
    levels: Tensor
    places: Tensor
    """What a step in each dimension adds to the number of a code."""

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
        self.register_buffer("places", levels.cumprod(0) // levels)
        self.inwards = nn.Sequential(
            nn.Linear(values, width),
            *(Alone(width) for _ in range(spec.depth)),
            nn.LayerNorm(width),
            nn.Linear(width, dimensions),
        )
        self.spread = nn.Linear(dimensions, width)
        self.outwards = nn.Sequential(*(Among(width) for _ in range(spec.depth)))
        self.paint = nn.Linear(width, values)

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation of the pixels, per channel."""
        return Statistics(self.mean, self.std)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean squared error of whole images put through their codes; nothing is drawn."""
        patches = normalize(patchify(batch.images, self.patch_size), self.statistics)
        grid = patch_grid(size_of(batch.images), self.patch_size)
        rebuilt = self.decode(rounded(self.squashed(filled(patches)), self.levels), grid)
        return Loss(squared_error(rebuilt, patches).mean(), {})

    def squashed(self, patches: Float[Tensor, "*b p"]) -> Float[Tensor, "*b q"]:
        """The numbers that stand for each patch, each between plus and minus half its count of levels."""
        return self.inwards(patches).tanh() * self.levels / 2

    def codes_of(self, patches: Float[Tensor, "*b p"]) -> Int[Tensor, "*b"]:
        """The number of the code of each patch, normalised by `statistics` and without missing values."""
        steps = rounded(self.squashed(patches), self.levels) + (self.levels - 1) / 2
        return (steps.round().long() * self.places).sum(-1)

    def values_of(self, codes: Int[Tensor, "*b"]) -> Float[Tensor, "*b q"]:
        """The rounded numbers that a code stands for."""
        steps = codes[..., None] // self.places % self.levels
        return steps - (self.levels - 1) / 2

    def decode(self, values: Float[Tensor, "b n q"], grid: Size) -> Float[Tensor, "b n p"]:
        """Normalised patches from the rounded numbers of a whole grid."""
        spread = self.spread(values / (self.levels / 2))
        spread = spread.transpose(1, 2).unflatten(2, tuple(grid))  # [b width rows columns]
        return self.paint(self.outwards(spread).flatten(2).transpose(1, 2))


def rounded(values: Float[Tensor, "*b q"], levels: Int[Tensor, "q"]) -> Float[Tensor, "*b q"]:
    """The middle of the unit step that each number lies in; an even count of steps about 0. Gradients pass as they are.

    The paper's equation for even counts but for the outermost steps, which are as wide as the others here.
    """
    middle = torch.minimum(values.floor() + 0.5, (levels - 1) / 2)
    return values + (middle - values).detach()


@dataclass(frozen=True, kw_only=True)
class TokenizerCodes:
    """Which code a trained tokenizer gives each hidden patch.

    It is read before the first step and kept with the weights; a run that has begun needs its folder no more.
    """

    path: str
    """A folder that `unmask tokenizer` has written."""

    tokenizer: ScalarTokenizer = ScalarTokenizer()
    """Its shape; `unmask pretrain` takes it from there."""

    def build(self, patch_size: int, channels: int) -> "CodeTarget":
        """The target for patches of this size, the tokenizer's weights yet to be put in."""
        return CodeTarget(self, patch_size, channels)


class CodeTarget(nn.Module):
    """See `TokenizerCodes`. The tokenizer never learns here."""

    gives_levels = True
    present: Tensor
    """1 where the tokenizer's weights are in, else 0."""

    def __init__(self, spec: TokenizerCodes, patch_size: int, channels: int) -> None:
        super().__init__()
        self.patch_size, self.path, self.out_dim = patch_size, spec.path, spec.tokenizer.codes
        unknown = Statistics(torch.zeros(channels), torch.ones(channels))
        self.tokenizer = spec.tokenizer.build(patch_size, channels, unknown).requires_grad_(False)
        self.register_buffer("present", torch.zeros(()))

    @property
    def complete(self) -> bool:
        """Whether the tokenizer's weights are in."""
        return bool(self.present > 0)

    def take(self, weights: dict[str, Tensor]) -> None:
        """Put a tokenizer's weights in; its shape must be that of the spec."""
        self.tokenizer.load_state_dict(weights)
        self.present.fill_(1.0)

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r 1"]:
        """The number of the code of each hidden patch; NaN where all of a patch is missing."""
        patches = self._patches(images, mask.image, mask.removed_index)
        return known_codes(self._codes(patches), patches, images)

    def loss(
        self, prediction: Float[Tensor, "m r codes"], target: Float[Tensor, "m r 1"]
    ) -> Float[Tensor, "m r"]:
        """Cross-entropy of each patch; 0 where its code is not known."""
        return code_errors(prediction, target)

    def pixels(
        self,
        prediction: Float[Tensor, "m n codes"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The picture of the likeliest codes of hidden patches among the codes that visible ones have."""
        visible = self._codes(self._patches(images, mask.image, mask.kept_index))
        codes = prediction.argmax(-1).scatter(1, mask.kept_index, visible)
        grid = patch_grid(size_of(images), self.patch_size)
        patches = self.tokenizer.decode(self.tokenizer.values_of(codes), grid)
        return normalize(denormalize(patches, self.tokenizer.statistics), statistics)

    def _patches(self, images: Tensor, image: Tensor, index: Tensor) -> Float[Tensor, "m k p"]:
        return gather(images, image, index, self.patch_size, self.tokenizer.statistics)

    def _codes(self, patches: Float[Tensor, "m k p"]) -> Int[Tensor, "m k"]:
        """In float32 whatever the precision of the network, so that they depend on the pixels alone."""
        with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
            return self.tokenizer.codes_of(filled(patches))
