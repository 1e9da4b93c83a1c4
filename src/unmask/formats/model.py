"""What weights need beside their tensors, so that a file can be used without the run that made it.

Every weight file of this package bears it as JSON in its metadata, under `unmask`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from unmask.contracts import ChannelStatistics, Size
from unmask.encoders import AnyEncoder
from unmask.encoders.vit import VisionTransformer
from unmask.objectives import AnyObjective
from unmask.objectives.mae import MaskedAutoencoder
from unmask.randomness import seeded

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Shape and origin of a model."""

    format: int
    """Version of this layout; a newer one is refused."""

    encoder: AnyEncoder
    """The encoder."""

    objective: AnyObjective | None
    """What it was pretrained with; null if there are no weights beside the encoder's."""

    image_size: Size
    """Size that its position tables are made for."""

    channels: int
    """Channels of an image."""

    statistics: ChannelStatistics
    """What its input is normalised with."""

    origin: str
    """Where the weights come from, in words."""

    def build_encoder(self, seed: int = 0) -> VisionTransformer:
        """The encoder, its weights drawn from the seed."""
        with seeded("weights", seed):
            return self.encoder.build(self.image_size, self.channels, self.statistics.tensors())

    def build_objective(self, seed: int = 0) -> MaskedAutoencoder:
        """Encoder and objective, their weights drawn from the seed; there must be an objective."""
        assert self.objective is not None
        with seeded("weights", seed):
            encoder = self.encoder.build(self.image_size, self.channels, self.statistics.tensors())
            return self.objective.build(encoder)


class Weights(NamedTuple):
    """A model's tensors in this package's names."""

    spec: ModelSpec
    encoder: dict[str, Tensor]
    """Of a `VisionTransformer`, mean and deviation included."""
    decoder: dict[str, Tensor]
    """Of the rest of the objective, such as `decoder.blocks.0.norm1.weight`; empty without one."""
