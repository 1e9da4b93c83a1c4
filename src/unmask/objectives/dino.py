"""DINO: self-distillation with no labels (Caron and others, 2021, "Emerging Properties in Self-Supervised ViTs")."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Moment, Size
from unmask.encoders.averages import follow, rising, slow_copy
from unmask.encoders.layers import kept_paths
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.patches import size_of
from unmask.spec import MOST_CODES, sized, within

_LARGE = 2
"""Number of large views, which the teacher sees."""


@dataclass(frozen=True, kw_only=True)
class DINO:
    """From any view of an image, predict a teacher's output for another, large view.

    The teacher is an exponential moving average of the student. Its outputs are centred and sharpened to prevent
    collapse. The result of pretraining is the teacher's encoder, as in the authors' evaluations. Departure: the encoder
    is the same as for all methods here, with fixed positions and MAE's initialisation, where DINO's authors learn
    positions and initialise from a truncated normal distribution.
    """

    smallest_batch: ClassVar[int] = 2
    """Images that a step needs at least: the centre of a single image's outputs would cancel them."""

    compared: ClassVar[Literal["class", "patches"]] = "class"
    """Views are compared by their class tokens."""

    prototypes: int = 65536
    """Outputs of the head (section 3.1, "Network architecture")."""

    hidden_dim: int = 2048
    """Width of the head's hidden layers."""

    bottleneck_dim: int = 256
    """Width of the normalised bottleneck before the last layer."""

    last_layer_scale: Literal["fixed", "learned"] = "fixed"
    """Whether the norms of the last layer's rows stay 1 or are learned (the authors learn them for ViT-S)."""

    frozen_epochs: int = 1
    """Epochs at the start in which the last layer is frozen."""

    student_temperature: float = 0.1
    """Softmax temperature of the student."""

    first_temperature: float = 0.04
    """Softmax temperature of the teacher in the first epoch."""

    temperature: float = 0.07
    """Softmax temperature of the teacher after its warm-up."""

    temperature_epochs: int = 30
    """Epochs of the linear warm-up of the teacher's temperature; 0 for none."""

    center_momentum: float = 0.9
    """Momentum of the centre (share of it that is kept at each step)."""

    teacher_momentum: float = 0.996
    """Momentum of the teacher (share of its weights that it keeps) at the first step; rises to 1 along half a cosine."""

    drop_path: float = 0.1
    """Stochastic depth rate of the student's last block; rises linearly from 0 in the first block."""

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "prototypes", "hidden_dim", "bottleneck_dim")
        sized(self, "prototypes", most=MOST_CODES)
        sized(self, "hidden_dim", "bottleneck_dim")
        within(self, "(0, inf)", "student_temperature", "first_temperature", "temperature")
        within(self, "[0, inf)", "frozen_epochs", "temperature_epochs")
        within(self, "[0, 1]", "center_momentum", "teacher_momentum")
        within(self, "[0, 1)", "drop_path", usual="DINO uses 0.1")

    def check_views(self, views: object, sizes: tuple[Size, ...]) -> None:
        """Refuse views that do not start with two large ones of the same size."""
        if len(sizes) < _LARGE or len(set(sizes[:_LARGE])) > 1:
            raise SettingsError(
                "DINO compares small views with two large ones of the same size, and these views are "
                f"{', '.join(map(str, sizes))} pixels; use views:multi-crop"
            )

    def temperature_at(self, epoch: int) -> float:
        """The teacher's temperature in an epoch, counted from 0."""
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
    companions: tuple[str, ...] = ("teacher.", "center")
    gives: str = "teacher.encoder."
    _output_sum: Tensor
    _output_count: Tensor

    def __init__(self, spec: DINO, encoder: VisionTransformer) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.head = Head(spec, encoder.embed_dim)
        self.teacher = nn.ModuleDict({"encoder": slow_copy(encoder), "head": slow_copy(self.head)})
        self.register_buffer("center", torch.zeros(spec.prototypes))
        # sum and number of the teacher's outputs over the micro-batches of a step
        self.register_buffer("_output_sum", torch.zeros(spec.prototypes), persistent=False)
        self.register_buffer("_output_count", torch.zeros(()), persistent=False)
        self._joined = False

    def join(self) -> None:
        """From now on, the centre is computed over the images of all processes."""
        self._joined = True

    def begin(self) -> None:
        """Set the teacher's weights to the student's."""
        follow(self.teacher["encoder"], self.encoder, momentum=0.0)
        follow(self.teacher["head"], self.head, momentum=0.0)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean cross-entropy over all pairs of a large view, seen by the teacher, and another view."""
        student = self._outputs(self.encoder, self.head, batch.views, self._paths(batch, generator))
        with torch.no_grad():
            teacher = self._outputs(
                self.teacher["encoder"], self.teacher["head"], batch.views[:_LARGE], None
            )
            self._output_sum += teacher.sum((0, 1))
            self._output_count += teacher.shape[0] * teacher.shape[1]
        loss = distillation_loss(
            student,
            teacher,
            self.center,
            self.spec.student_temperature,
            self.spec.temperature_at(batch.epoch),
        )
        return Loss(loss, {})

    def before_step(self, moment: Moment) -> None:
        """Freeze the last layer in the first epochs."""
        if moment.epoch < self.spec.frozen_epochs:
            for parameter in self.head.last.parameters():
                parameter.grad = None

    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        """Update the teacher and the centre; the centre covers the images of all processes."""
        momentum = rising(self.spec.teacher_momentum, moment.step / moment.steps)
        follow(self.teacher["encoder"], self.encoder, momentum)
        follow(self.teacher["head"], self.head, momentum)
        sum_and_count = torch.cat([self._output_sum, self._output_count[None]])  # one collective
        if self._joined:
            dist.all_reduce(sum_and_count)
        mean = sum_and_count[:-1] / sum_and_count[-1]
        self.center.lerp_(mean, 1 - self.spec.center_momentum)
        self._output_sum.zero_()
        self._output_count.zero_()

    def _outputs(
        self,
        encoder: nn.Module,
        head: nn.Module,
        views: Sequence[Tensor],
        paths: Float[Tensor, "halves v b 1 1"] | None,
    ) -> Float[Tensor, "v b o"]:
        """The head's outputs for all views; views of the same size are encoded together."""
        assert isinstance(encoder, VisionTransformer)
        tokens: list[Tensor] = []
        first = 0
        for _, group in groupby(views, key=size_of):
            same_size = list(group)
            last = first + len(same_size)
            group_paths = None if paths is None else paths[:, first:last].flatten(1, 2)
            tokens.append(encoder.encode(torch.cat(same_size), group_paths).cls.mean(1))
            first = last
        return head(torch.cat(tokens)).float().unflatten(0, (len(views), -1))

    def _paths(
        self, batch: Batch, generator: torch.Generator
    ) -> Float[Tensor, "halves v b 1 1"] | None:
        """Stochastic depth of the student for each view of each image; drawn for the whole step."""
        if not self.training or self.spec.drop_path == 0:
            return None
        depth, views = len(self.encoder.blocks), len(batch.views)
        rates = torch.linspace(0, self.spec.drop_path, depth, device=generator.device)
        paths = kept_paths(rates.repeat_interleave(2), views * batch.whole, generator)
        return batch.own(paths.unflatten(1, (views, -1)), dim=2)


class Head(nn.Module):
    """A three-layer MLP, a bottleneck normalised to length 1, and prototypes (`Prototypes`)."""

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
    """A linear layer without bias and with weight normalisation: directions times one scale per row."""

    def __init__(self, in_dim: int, count: int, learned: bool) -> None:
        super().__init__()
        self.direction = nn.Parameter(nn.Linear(in_dim, count, bias=False).weight.detach().clone())
        self.scale = nn.Parameter(torch.ones(count, 1), requires_grad=learned)

    def forward(self, points: Float[Tensor, "rows i"]) -> Float[Tensor, "rows o"]:
        """The product with each prototype."""
        return F.linear(points, self.scale * F.normalize(self.direction, dim=1))


def distillation_loss(
    student: Float[Tensor, "v b o"],
    teacher: Float[Tensor, "large b o"],
    center: Float[Tensor, " o"],
    student_temperature: float,
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean cross-entropy between the teacher's output of each large view and the student's of every other (equation 3).

    The cross-entropy is linear in the student's log-probabilities, so they are summed before the product.
    """
    target = ((teacher - center) / temperature).softmax(-1)
    log_probabilities = (student / student_temperature).log_softmax(-1)
    # for each of the teacher's views, the sum over all other views
    others = log_probabilities.sum(0) - log_probabilities[: len(teacher)]
    pairs = len(teacher) * (len(student) - 1)
    return -(target * others).sum(-1).mean(1).sum() / pairs
