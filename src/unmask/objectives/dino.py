"""Self-distillation with no labels (Caron and others, "Emerging Properties in Self-Supervised Vision Transformers", 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Moment, Size
from unmask.encoders.layers import kept_paths
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.objectives.processes import total
from unmask.objectives.teacher import equal, follow, rising, slow_copy
from unmask.patches import size_of

_LARGE = 2
"""Views that the teacher sees."""


@dataclass(frozen=True, kw_only=True)
class DINO:
    """From any view of an image, guess what a slow copy of the model makes of another, large one.

    The teacher's outputs are centred and sharpened, so that neither one of them nor none of them wins. The encoder is
    the one of all methods here: its positions are fixed and its weights drawn as MAE's, where DINO's authors learn
    positions and draw from a truncated normal distribution. What is given away is the teacher's encoder, as
    in their evaluations.
    """

    prototypes: int = 65536
    """Outputs of the head (section 3.1, "Network architecture")."""

    hidden_dim: int = 2048
    """Width of the head's hidden layers."""

    bottleneck_dim: int = 256
    """Width of what is normalised before the last layer."""

    last_layer_scale: Literal["fixed", "learned"] = "fixed"
    """Whether the norms of the last layer's rows stay 1 (the authors learn them for ViT-S)."""

    frozen_epochs: int = 1
    """Epochs at the beginning in which the last layer does not learn."""

    student_temperature: float = 0.1
    """What the student's outputs are divided by."""

    first_temperature: float = 0.04
    """What the teacher's centred outputs are divided by in the first epoch."""

    temperature: float = 0.07
    """The same after the warm-up."""

    temperature_epochs: int = 30
    """Epochs of the rise from one to the other, in a line; 0 for none."""

    center_momentum: float = 0.9
    """Share of the old centre that stays at each step."""

    teacher_momentum: float = 0.996
    """Share of the teacher's old weights that stays at the first step; rises to 1 along half a cosine."""

    drop_path: float = 0.1
    """How often the halves of the student's last block are skipped; rises in a line from 0 in the first."""

    def __post_init__(self) -> None:
        for name in ("prototypes", "hidden_dim", "bottleneck_dim"):
            if getattr(self, name) < 2:
                raise SettingsError(f"{name} must be at least 2, got {getattr(self, name)}")
        for name in ("student_temperature", "first_temperature", "temperature"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("frozen_epochs", "temperature_epochs"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("center_momentum", "teacher_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.drop_path < 1:
            raise SettingsError(f"drop_path must lie in [0, 1), got {self.drop_path}")

    @property
    def smallest_batch(self) -> int:
        """The centre of one image's outputs would be those outputs."""
        return 2

    def check_views(self, sizes: tuple[Size, ...]) -> None:
        """Refuse views without two large ones of a size to come first."""
        if len(sizes) < _LARGE or len(set(sizes[:_LARGE])) > 1:
            raise SettingsError(
                f"DINO compares two large views of each image, and small ones with them, and is shown {len(sizes)}; "
                "choose views:multi-crop"
            )

    def temperature_at(self, epoch: int) -> float:
        """What the teacher's outputs are divided by in an epoch, counted from 0."""
        if epoch >= self.temperature_epochs:
            return self.temperature
        done = epoch / max(1, self.temperature_epochs - 1)
        return self.first_temperature + done * (self.temperature - self.first_temperature)

    def build(self, encoder: VisionTransformer) -> "SelfDistillation":
        """The module around an encoder."""
        return SelfDistillation(self, encoder)


class SelfDistillation(nn.Module):
    """See `DINO`."""

    center: Tensor
    _noted: Tensor
    _notes: Tensor
    companions: tuple[str, ...] = ("teacher.", "center")
    gives: str = "teacher.encoder."

    def __init__(self, spec: DINO, encoder: VisionTransformer) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.head = Head(spec, encoder.embed_dim)
        self.teacher = nn.ModuleDict({"encoder": slow_copy(encoder), "head": slow_copy(self.head)})
        self.register_buffer("center", torch.zeros(spec.prototypes))
        # of the step's images so far: the sum of the teacher's outputs, and their number
        self.register_buffer("_noted", torch.zeros(spec.prototypes), persistent=False)
        self.register_buffer("_notes", torch.zeros(()), persistent=False)
        self._joined = False

    def join(self) -> None:
        """From now on the centre is that of all processes' images."""
        self._joined = True

    def begin(self) -> None:
        """Let the teacher be what the student is."""
        equal(self.teacher["encoder"], self.encoder)
        equal(self.teacher["head"], self.head)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean cross-entropy of all pairs of a large view, seen by the teacher, and another one."""
        guesses = self._outputs(self.encoder, self.head, batch.views, self._paths(batch, generator))
        with torch.no_grad():
            taught = self._outputs(
                self.teacher["encoder"], self.teacher["head"], batch.views[:_LARGE], None
            )
            self._noted += taught.sum((0, 1))
            self._notes += taught.shape[0] * taught.shape[1]
        temperatures = self.spec.student_temperature, self.spec.temperature_at(batch.epoch)
        return Loss(distillation_loss(guesses, taught, self.center, *temperatures), {})

    def before_step(self, moment: Moment) -> None:
        """Let the last layer rest in the first epochs."""
        if moment.epoch < self.spec.frozen_epochs:
            for parameter in self.head.last.parameters():
                parameter.grad = None

    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        """Let the teacher follow, and the centre, which is that of all processes' images."""
        momentum = rising(self.spec.teacher_momentum, moment.step / moment.steps)
        follow(self.teacher["encoder"], self.encoder, momentum)
        follow(self.teacher["head"], self.head, momentum)
        both = torch.cat([self._noted, self._notes[None]])
        both = total(both) if self._joined else both
        self.center.lerp_(both[:-1] / both[-1], 1 - self.spec.center_momentum)
        self._noted.zero_()
        self._notes.zero_()

    def _outputs(
        self,
        encoder: nn.Module,
        head: nn.Module,
        views: Sequence[Tensor],
        paths: Float[Tensor, "halves v b 1 1"] | None,
    ) -> Float[Tensor, "v b o"]:
        """The head's outputs for all views; those of a size go through the encoder together."""
        assert isinstance(encoder, VisionTransformer)
        tokens: list[Tensor] = []
        first = 0
        for _, group in groupby(views, key=size_of):
            alike = list(group)
            last = first + len(alike)
            kept = None if paths is None else paths[:, first:last].flatten(1, 2)
            tokens.append(encoder.encode(torch.cat(alike), kept).cls.mean(1))
            first = last
        return head(torch.cat(tokens)).float().unflatten(0, (len(views), -1))

    def _paths(
        self, batch: Batch, generator: torch.Generator
    ) -> Float[Tensor, "halves v b 1 1"] | None:
        """What the student skips of each view of each image; drawn for the whole step."""
        if not self.training or self.spec.drop_path == 0:
            return None
        depth, views = len(self.encoder.blocks), len(batch.views)
        rates = torch.linspace(0, self.spec.drop_path, depth, device=generator.device)
        drawn = kept_paths(rates.repeat_interleave(2), views * batch.whole, generator)
        return batch.own(drawn.unflatten(1, (views, -1)), dim=2)


class Head(nn.Module):
    """Three layers, a bottleneck of length 1, and a last layer whose rows have length 1, or one that is learned."""

    def __init__(self, spec: DINO, embed_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, spec.hidden_dim),
            nn.GELU(),
            nn.Linear(spec.hidden_dim, spec.hidden_dim),
            nn.GELU(),
            nn.Linear(spec.hidden_dim, spec.bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        learned = spec.last_layer_scale == "learned"
        self.last = Prototypes(spec.bottleneck_dim, spec.prototypes, learned)

    def forward(self, tokens: Float[Tensor, "rows d"]) -> Float[Tensor, "rows o"]:
        """Similarity to each prototype."""
        return self.last(F.normalize(self.mlp(tokens), dim=-1))


class Prototypes(nn.Module):
    """A linear layer without bias whose weights are directions, times one number a row (weight normalisation)."""

    def __init__(self, in_dim: int, count: int, learned: bool) -> None:
        super().__init__()
        self.direction = nn.Parameter(nn.Linear(in_dim, count, bias=False).weight.detach().clone())
        self.scale = nn.Parameter(torch.ones(count, 1), requires_grad=learned)

    def forward(self, points: Float[Tensor, "rows i"]) -> Float[Tensor, "rows o"]:
        """The product of points and rows."""
        return F.linear(points, self.scale * F.normalize(self.direction, dim=1))


def distillation_loss(
    guesses: Float[Tensor, "v b o"],
    taught: Float[Tensor, "large b o"],
    center: Float[Tensor, "o"],
    student_temperature: float,
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of every large view's teacher and every other view's student, their mean (equation 3).

    The students of a teacher are added up before the product, which is linear in them.
    """
    wanted = ((taught - center) / temperature).softmax(-1)
    logs = (guesses / student_temperature).log_softmax(-1)
    others = logs.sum(0) - logs[: len(taught)]  # of every view but the teacher's own
    pairs = len(taught) * (len(guesses) - 1)
    return -(wanted * others).sum(-1).mean(1).sum() / pairs
