"""Momentum contrast for Vision Transformers (Chen, Xie, He, "An Empirical Study of Training Self-Supervised Vision Transformers", 2021)."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Moment, Size
from unmask.encoders.layers import Block
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.objectives.processes import gathered, summed
from unmask.objectives.teacher import equal, follow, rising, slow_copy

_VIEWS = 2
_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class MoCo3:
    """Tell which of a batch's images, seen by a slow copy of the model, is another view of the same.

    Patches are projected by a matrix that stays as it was drawn (section 4.1, "Random patch projection"), and queries, keys and
    values are drawn as three matrices. What is given away is the encoder itself, not its copy.
    """

    hidden_dim: int = 4096
    """Width of the hidden layers of projector and predictor."""

    out_dim: int = 256
    """Width of what is compared."""

    temperature: float = 0.2
    """What similarities are divided by."""

    momentum: float = 0.99
    """Share of the copy's old weights that stays at the first step; rises to 1 along half a cosine."""

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "out_dim"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise SettingsError(f"temperature must be above 0, got {self.temperature}")
        if not 0 <= self.momentum <= 1:
            raise SettingsError(f"momentum must lie between 0 and 1, got {self.momentum}")

    @property
    def smallest_batch(self) -> int:
        """Without another image there is nothing to tell an image from."""
        return 2

    def check_views(self, sizes: tuple[Size, ...]) -> None:
        """Refuse all but two views of a size."""
        if len(sizes) != _VIEWS or len(set(sizes)) > 1:
            raise SettingsError(
                f"MoCo v3 compares two views of each image, of one size, and is shown {len(sizes)}; choose views:two-crops"
            )

    def build(self, encoder: VisionTransformer) -> "MomentumContrast":
        """The module around an encoder, whose patch projection no longer learns."""
        return MomentumContrast(self, encoder)


class MomentumContrast(nn.Module):
    """See `MoCo3`."""

    companions: tuple[str, ...] = ("slow.",)
    gives: str = "encoder."
    undivided: str = "MoCo v3 compares each image with all others"

    def __init__(self, spec: MoCo3, encoder: VisionTransformer) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        encoder.patch_embed.requires_grad_(False)
        _draw_apart(encoder)
        hidden, out = spec.hidden_dim, spec.out_dim
        self.projector = perceptron(encoder.embed_dim, hidden, hidden, out)
        self.predictor = perceptron(out, hidden, out)
        self.slow = nn.ModuleDict(
            {"encoder": slow_copy(encoder), "projector": slow_copy(self.projector)}
        )
        self._joined = False

    def join(self) -> None:
        """From now on images are compared with those of all processes."""
        self._joined = True

    def begin(self) -> None:
        """Let the slow copy be what the model is."""
        equal(self.slow["encoder"], self.encoder)
        equal(self.slow["projector"], self.projector)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The symmetric loss: each view as query, the other one as key (algorithm 1)."""
        queries = [
            self.predictor(points) for points in self._points(self.encoder, self.projector, batch)
        ]
        with torch.no_grad():
            keys = self._points(self.slow["encoder"], self.slow["projector"], batch)
        first = 0
        if self._joined:
            keys = [gathered(key) for key in keys]
            first = dist.get_rank() * len(queries[0])
        temperature = self.spec.temperature
        return Loss(
            contrastive_loss(queries[0], keys[1], first, temperature)
            + contrastive_loss(queries[1], keys[0], first, temperature),
            {},
        )

    def after_step(self, moment: Moment) -> None:
        """Let the slow copy follow, with the momentum of the next step, at whose beginning the authors do so."""
        momentum = rising(self.spec.momentum, (moment.step + 1) / moment.steps)
        follow(self.slow["encoder"], self.encoder, momentum)
        follow(self.slow["projector"], self.projector, momentum)

    def _points(self, encoder: nn.Module, projector: nn.Module, batch: Batch) -> list[Tensor]:
        """What is compared, of each view; normalisation is of one view's images, as published."""
        assert isinstance(encoder, VisionTransformer)
        tokens = encoder.encode(torch.cat(batch.views)).cls.mean(1)
        return [projector(part) for part in tokens.chunk(_VIEWS)]


class BatchNorm(nn.Module):
    """Batch normalisation over the images of all processes; there are no running averages, as nothing is ever evaluated."""

    def __init__(self, width: int, *, affine: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self._joined = False

    def join(self) -> None:
        """From now on the images are those of all processes."""
        self._joined = True

    def forward(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Each column with mean 0 and deviation 1, then scaled and shifted if it learns to."""
        rows = rows.float()
        mean = self._mean(rows)
        spread = self._mean((rows - mean).square())
        normal = (rows - mean) * (spread + _EPSILON).rsqrt()
        if self.weight is None or self.bias is None:
            return normal
        return normal * self.weight + self.bias

    def _mean(self, rows: Float[Tensor, "b d"]) -> Float[Tensor, "d"]:
        mean = rows.mean(0)  # all processes have equally many
        return summed(mean) / dist.get_world_size() if self._joined else mean


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers without biases, batch normalisation after each; the last has no parameters and no ReLU after it."""
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(pairwise(widths)):
        last = place == len(widths) - 2
        layers += [nn.Linear(before, after, bias=False), BatchNorm(after, affine=not last)]
        layers += [] if last else [nn.ReLU()]
    return nn.Sequential(*layers)


def contrastive_loss(
    queries: Float[Tensor, "b o"],
    keys: Float[Tensor, "whole o"],
    first: int,
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of finding each query's own key, which lies `first` places later, among all (algorithm 1).

    Times twice the temperature, so that the size of gradients hardly depends on it.
    """
    alike = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T
    own = torch.arange(first, first + len(queries), device=queries.device)
    return 2 * temperature * F.cross_entropy(alike / temperature, own)


def _draw_apart(encoder: VisionTransformer) -> None:
    """Draw queries, keys and values of each block as three matrices, and not as one."""
    for block in encoder.blocks:
        weight = cast(Block, block).attn.qkv.weight
        bound = math.sqrt(3 / weight.shape[1])  # sqrt(6 / (2 d))
        nn.init.uniform_(weight, -bound, bound)
