"""Places: two looks of the same ground have similar vectors, looks of other ground have not.

Symmetric InfoNCE over all processes (van den Oord and others, 2018; Radford and others, 2021), each pair weighted by the ground that
both looks show (after Ji and others, 2024, "Game4Loc", who weight by overlap), with hard negatives from a memory of past steps (Wang
and others, 2020, "Cross-Batch Memory for Embedding Learning").
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Moment, Size
from unmask.encoders.joint_norm import BatchNorm
from unmask.encoders.joint_sums import joint_rows
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.geo.overlap import overlapping, shared
from unmask.spec import within
from unmask.traits import Outlined

_VIEWS = 2
_LEAST_WEIGHT = 1e-6  # of all pairs together


@dataclass(frozen=True, kw_only=True)
class Place:
    """Find, among all looks of a batch and the most similar ones of the past, the other look of the same ground.

    What is compared is the mean patch token, as `unmask embed` writes it, with mean 0 and variance 1 over the batch. Looks of
    overlapping ground are never negatives: batches say what their views show (`views:two-looks`).
    """

    smallest_batch: ClassVar[int] = 2
    """Images that a step needs at least: the other one is a negative."""

    compared: ClassVar[Literal["class", "patches"]] = "patches"
    """Looks are compared by the mean of their patch tokens."""

    temperature: float = 0.1
    """Softmax temperature of the similarities."""

    memory: int = 4096
    """Looks of past steps among which hard negatives are found; 0 for none."""

    hardest: int = 64
    """How many of them, the most similar ones, each look is compared with beside those of the batch."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "temperature")
        within(self, "[0, inf)", "memory", "hardest")

    def check_views(self, views: object, sizes: tuple[Size, ...]) -> None:
        """Refuse everything but two views of the same size that say what they show."""
        if not isinstance(views, Outlined):
            raise SettingsError(
                "places are learned from views that say what ground they show, and these do not; use views:two-looks"
            )
        if len(sizes) != _VIEWS or len(set(sizes)) > 1:
            raise SettingsError(
                "places are learned from two looks of each tile of the same size, and these views are "
                f"{', '.join(map(str, sizes))} pixels; use views:two-looks"
            )

    def build(self, encoder: VisionTransformer) -> "PlaceContrast":
        """The module around an encoder."""
        return PlaceContrast(self, encoder)


class Looks(NamedTuple):
    """Looks with what they show."""

    vectors: Float[Tensor, "n d"]
    """Of length 1."""
    corners: Float[Tensor, "n 4 2"]


class Past(nn.Module):
    """The looks of past steps, the oldest replaced first."""

    vectors: Tensor
    corners: Tensor
    count: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("corners", torch.zeros(size, 4, 2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forget(self) -> None:
        """Start without any."""
        self.count.zero_()

    def add(self, looks: Looks) -> None:
        """Remember looks; only the last ones if they are more than there is room for."""
        size = len(self.vectors)
        vectors, corners = looks.vectors[-size:], looks.corners[-size:]
        places = (self.count + torch.arange(len(vectors), device=self.count.device)) % size
        self.vectors[places] = vectors
        self.corners[places] = corners
        self.count += len(vectors)

    def hardest(
        self, looks: Looks, similarity: Float[Tensor, "n m"], count: int
    ) -> Float[Tensor, "n k"]:
        """The highest similarities to looks of other ground; -inf where there are fewer."""
        known = torch.arange(len(self.vectors), device=self.count.device) < self.count
        usable = known & ~overlapping(looks.corners, self.corners)
        others = similarity.masked_fill(~usable, -torch.inf)
        return others.topk(min(count, others.shape[1]), dim=1).values


class PlaceContrast(nn.Module):
    """See `Place`."""

    companions: tuple[str, ...] = ("past.",)
    gives: str = "encoder."
    undivided: str = "places are compared with all others of the batch"

    def __init__(self, spec: Place, encoder: VisionTransformer) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.center = BatchNorm(encoder.embed_dim, affine=False)
        self.past = Past(spec.memory, encoder.embed_dim)
        self._latest: Looks | None = None
        self._joined = False

    def join(self) -> None:
        """From now on, looks are compared with those of all processes."""
        self._joined = True

    def begin(self) -> None:
        """Forget the looks of other weights."""
        self.past.forget()

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The symmetric loss, and how much ground the looks of a pair share."""
        tokens = self.encoder.encode(torch.cat(batch.views)).patches.mean(1)
        # similarities are divided by a small temperature, so they must not depend on precision
        with torch.autocast(tokens.device.type, enabled=False):
            return self._compared(tokens.float(), batch)

    def _compared(self, tokens: Float[Tensor, "views_b d"], batch: Batch) -> Loss:
        vectors = F.normalize(self.center(tokens), dim=1)
        assert batch.footprints is not None  # `Place.check_views`
        corners = batch.footprints.transpose(0, 1).flatten(0, 1)  # [views x b 4 2], as the vectors
        own = [
            Looks(*parts)
            for parts in zip(vectors.chunk(_VIEWS), corners.chunk(_VIEWS), strict=True)
        ]
        places = torch.arange(len(batch.index), device=vectors.device)
        if self._joined:
            assert batch.part is not None
            places = batch.part.rows.to(vectors.device)
        all_ = [self._whole(looks, places, batch.whole) for looks in own]
        pairs = shared(all_[0].corners, all_[1].corners)
        self._latest = Looks(
            torch.cat([looks.vectors for looks in all_]).detach(),
            torch.cat([looks.corners for looks in all_]),
        )
        losses = [self._one_way(own[view], all_[1 - view], places, pairs) for view in range(_VIEWS)]
        return Loss((losses[0] + losses[1]) / 2, {"overlap": pairs.mean()})

    def after_step(self, moment: Moment) -> None:
        """Remember the looks of the step."""
        if self._latest is not None and self.spec.memory:
            self.past.add(self._latest)
        self._latest = None

    def _one_way(
        self,
        looks: Looks,
        others: Looks,
        places: Int[Tensor, " b"],
        pairs: Float[Tensor, " whole"],
    ) -> Float[Tensor, ""]:
        """Cross-entropy of finding the other look of each, at its place among all others, weighted by what a pair shares.

        The weights of all processes together have a mean of 1.
        """
        similarity = looks.vectors @ others.vectors.T / self.spec.temperature
        logits = similarity.masked_fill(_excluded(looks, others, places), -torch.inf)
        if self.spec.memory and self.spec.hardest:
            past = looks.vectors @ self.past.vectors.T / self.spec.temperature
            logits = torch.cat([logits, self.past.hardest(looks, past, self.spec.hardest)], 1)
        missed = F.cross_entropy(logits, places, reduction="none")
        weights = pairs / pairs.mean().clamp(min=_LEAST_WEIGHT)
        return (missed * weights[places]).mean()

    def _whole(self, looks: Looks, places: Int[Tensor, " b"], whole: int) -> Looks:
        """The looks of all processes, in the order of the batch."""
        if not self._joined:
            return looks
        corners = joint_rows(looks.corners.flatten(1), places, whole).view(-1, 4, 2)
        return Looks(joint_rows(looks.vectors, places, whole), corners)


def _excluded(looks: Looks, others: Looks, places: Int[Tensor, " b"]) -> Bool[Tensor, "b whole"]:
    """Looks of overlapping ground, other than the other look of the same pair."""
    excluded = overlapping(looks.corners, others.corners)
    excluded[torch.arange(len(places), device=places.device), places] = False
    return excluded
