"""The description of a model that makes its weights usable without the run that trained them.

Every weight file of this package has it as JSON in its metadata, under the key `unmask`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.encoders import AnyEncoder
from unmask.encoders.vit import VisionTransformer, with_old_resampling
from unmask.errors import DataError, RunError, SettingsError
from unmask.files import parse_json
from unmask.objectives import AnyObjective
from unmask.randomness import seeded
from unmask.spec import from_json, sized
from unmask.targets.tokenizer import current_names

FORMAT = 2

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Shape and origin of a model."""

    format: int
    """Version of this layout; a newer one is refused."""

    encoder: AnyEncoder
    """The encoder."""

    objective: AnyObjective | None
    """Pretraining objective; null if there are only the encoder's weights."""

    image_size: Size
    """Image size of the position tables."""

    channels: int
    """Channels of an image."""

    statistics: ChannelStatistics
    """Statistics that the input is normalised with."""

    origin: str
    """Where the weights come from, in words."""

    def __post_init__(self) -> None:
        sized(self, "channels")
        sized(self.image_size, "height", "width")

    def without_decoder(self) -> "ModelSpec":
        """The spec of only the encoder."""
        return replace(self, objective=None)

    def build_encoder(self, seed: int = 0) -> VisionTransformer:
        """The encoder with random weights from the seed."""
        with seeded("weights", seed):
            return self.encoder.build(self.image_size, self.channels, self.statistics.tensors())

    def build_objective(self, seed: int = 0) -> nn.Module:
        """Encoder and objective with random weights from the seed; there must be an objective."""
        assert self.objective is not None
        with seeded("weights", seed):
            encoder = self.encoder.build(self.image_size, self.channels, self.statistics.tensors())
            return self.objective.build(encoder)


class Weights(NamedTuple):
    """The tensors of a model with this package's names."""

    spec: ModelSpec
    encoder: dict[str, Tensor]
    """Tensors of a `VisionTransformer`, including mean and standard deviation of pixels."""
    decoder: dict[str, Tensor]
    """All other tensors of the objective, such as `decoder.blocks.0.norm1.weight`; empty without one."""
    notes: tuple[str, ...] = ()
    """Notes for the user: what was left out of the file or reinterpreted."""

    @property
    def whole(self) -> dict[str, Tensor]:
        """All tensors, with the names that they have in the objective."""
        return {**{f"encoder.{name}": t for name, t in self.encoder.items()}, **self.decoder}

    def build_encoder(self) -> VisionTransformer:
        """The encoder with these weights."""
        return _filled(self.spec.build_encoder, self.encoder)

    def build_objective(self) -> nn.Module:
        """Encoder and objective with these weights; there must be a decoder."""
        return _filled(self.spec.build_objective, self.whole)


def _filled(build: Callable[[], Module], tensors: dict[str, Tensor]) -> Module:
    """A module with these tensors as its weights."""
    with torch.device("meta"):  # saves the initialisation of weights that are replaced
        module = build()
    # copies, because `assign=True` would let training change the original tensors
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    module.load_state_dict(copies, assign=True)
    return module


def split(whole: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An objective's tensors: those of the encoder, and the others.

    A tokenizer among the others (the target of its codes) gets its current names.
    """
    whole = current_names(whole, "target.tokenizer.")
    encoder = {n.removeprefix("encoder."): t for n, t in whole.items() if n.startswith("encoder.")}
    return encoder, {name: t for name, t in whole.items() if not name.startswith("encoder.")}


def read_spec(text: str, where: Path) -> ModelSpec:
    """The spec in the metadata of a file.

    Raises:
        RunError: if it was written by a newer version of this package.
        DataError: if it cannot be read.
    """
    try:
        data = parse_json(text, "it")
        version = data.get("format") if isinstance(data, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise RunError(
                f"{where} has model format {version}, and this unmask reads up to {FORMAT}; install a "
                "newer unmask"
            )
        if isinstance(data, dict) and version == 1:
            data = {**data, "format": 2, "encoder": with_old_resampling(data.get("encoder"))}
        return from_json(ModelSpec, data)
    except (DataError, SettingsError) as error:
        raise DataError(f"the model description in {where} cannot be read: {error}") from None
