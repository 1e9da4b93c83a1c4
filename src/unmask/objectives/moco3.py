"""MoCo v3: momentum contrast (Chen, Xie and He, 2021, "An Empirical Study of Training Self-Supervised ViTs")."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Moment, Size
from unmask.encoders.averages import follow, rising, slow_copy
from unmask.encoders.joint_norm import BatchNorm
from unmask.encoders.layers import Block
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.spec import sized, within

_VIEWS = 2


@dataclass(frozen=True, kw_only=True)
class MoCo3:
    """Find, among all images of a batch as a momentum encoder sees them, the other view of the same image.

    The patch projection is frozen at its random initialisation (section 4.1, "Random patch projection"). Queries, keys
    and values are initialised as three separate matrices. The result of pretraining is the encoder itself, not the
    momentum encoder.
    """

    smallest_batch: ClassVar[int] = 2
    """Images that a step needs at least: the other one is a negative."""

    compared: ClassVar[Literal["class", "patches"]] = "class"
    """Views are compared by their class tokens."""

    hidden_dim: int = 4096
    """Width of the hidden layers of projector and predictor."""

    out_dim: int = 256
    """Width of the compared embeddings."""

    temperature: float = 0.2
    """Softmax temperature of the similarities."""

    momentum: float = 0.99
    """Momentum of the momentum encoder (share of its weights that it keeps) at the first step; rises to 1 along half a cosine."""

    def __post_init__(self) -> None:
        sized(self, "hidden_dim", "out_dim")
        within(self, "(0, inf)", "temperature", usual="MoCo v3 uses 0.2")
        within(self, "[0, 1]", "momentum", usual="MoCo v3 uses 0.99")

    def check_views(self, views: object, sizes: tuple[Size, ...]) -> None:
        """Refuse everything but two views of the same size."""
        if len(sizes) != _VIEWS or len(set(sizes)) > 1:
            raise SettingsError(
                "MoCo v3 compares two views of each image of the same size, and these views are "
                f"{', '.join(map(str, sizes))} pixels; use views:two-crops"
            )

    def build(self, encoder: VisionTransformer) -> "MomentumContrast":
        """The module around an encoder, whose patch projection is frozen."""
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
        _initialize_separately(encoder)
        hidden, out = spec.hidden_dim, spec.out_dim
        self.projector = perceptron(encoder.embed_dim, hidden, hidden, out)
        self.predictor = perceptron(out, hidden, out)
        self.slow = nn.ModuleDict(
            {"encoder": slow_copy(encoder), "projector": slow_copy(self.projector)}
        )
        self._joined = False

    def join(self) -> None:
        """From now on, images are compared with those of all processes."""
        self._joined = True

    def begin(self) -> None:
        """Set the momentum encoder's weights to the encoder's."""
        follow(self.slow["encoder"], self.encoder, momentum=0.0)
        follow(self.slow["projector"], self.projector, momentum=0.0)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The symmetric loss: each view as query and the other one as key (algorithm 1)."""
        queries = [
            self.predictor(projected)
            for projected in self._project(self.encoder, self.projector, batch)
        ]
        with torch.no_grad():
            keys = self._project(self.slow["encoder"], self.slow["projector"], batch)
        first = 0
        if self._joined:
            keys = [_gathered(key) for key in keys]
            first = dist.get_rank() * len(queries[0])
        temperature = self.spec.temperature
        return Loss(
            contrastive_loss(queries[0], keys[1], first, temperature)
            + contrastive_loss(queries[1], keys[0], first, temperature),
            {},
        )

    def after_step(self, moment: Moment) -> None:
        """Update the momentum encoder.

        The authors update it at the start of a step, so this uses the momentum of the next step.
        """
        momentum = rising(self.spec.momentum, (moment.step + 1) / moment.steps)
        follow(self.slow["encoder"], self.encoder, momentum)
        follow(self.slow["projector"], self.projector, momentum)

    def _project(self, encoder: nn.Module, projector: nn.Module, batch: Batch) -> list[Tensor]:
        """The projected class tokens of each view.

        Views are encoded together but projected separately: batch normalisation is over one view, as published.
        """
        assert isinstance(encoder, VisionTransformer)
        tokens = encoder.encode(torch.cat(batch.views)).cls.mean(1)
        return [projector(view) for view in tokens.chunk(_VIEWS)]


def _gathered(rows: Float[Tensor, "b d"]) -> Float[Tensor, "whole d"]:
    """The rows of all processes in the order of ranks, without gradients; each process has equally many rows."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers without biases, each with batch normalisation and ReLU; the last one without ReLU and affine part."""
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        is_last = number == len(widths) - 2
        layers += [nn.Linear(before, after, bias=False), BatchNorm(after, affine=not is_last)]
        layers += [] if is_last else [nn.ReLU()]
    return nn.Sequential(*layers)


def contrastive_loss(
    queries: Float[Tensor, "b o"],
    keys: Float[Tensor, "whole o"],
    first: int,
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of finding the key of each query among those of all processes (algorithm 1): `first` + i for query i.

    The loss is multiplied by twice the temperature, so that the scale of gradients hardly depends on it.
    """
    similarity = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T
    index = torch.arange(first, first + len(queries), device=queries.device)
    return 2 * temperature * F.cross_entropy(similarity / temperature, index)


def _initialize_separately(encoder: VisionTransformer) -> None:
    """Initialise queries, keys and values of each block as three matrices, as the authors do, not as one."""
    for block in encoder.blocks:
        weight = cast(Block, block).attn.qkv.weight
        bound = math.sqrt(3 / weight.shape[1])  # Xavier-uniform of a d x d matrix: sqrt(6 / (2 d))
        nn.init.uniform_(weight, -bound, bound)
