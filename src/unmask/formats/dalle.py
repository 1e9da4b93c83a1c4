"""DALL-E's released `encoder.pkl`: a whole pickled module, of which the tensors alone are taken.

Torch's restricted unpickler reads it. The classes that the file names stand in for themselves as empty boxes, so none
of their code, nor any other, is run or even needed.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmask.errors import DataError
from unmask.formats.files import damaged, read_file


class Shape(NamedTuple):
    """What tensors of a DALL-E encoder say of it."""

    codes: int
    width: int
    depth: int
    """Blocks of a group."""


class _Box:
    """Anything that the file names, with what it held."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All parameters within, by name."""
        for name, tensor in self.state.get("_parameters", {}).items():
            if isinstance(tensor, Tensor):
                yield prefix + name, tensor.detach().float()
        for name, inner in self.state.get("_modules", {}).items():
            if isinstance(inner, _Box):
                yield from inner.tensors(f"{prefix}{name}.")


_BOXED = [
    "dall_e.encoder.Encoder",
    "dall_e.encoder.EncoderBlock",
    "dall_e.utils.Conv2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.pooling.MaxPool2d",
]


def read_dalle(path: str) -> tuple[Shape, dict[str, Tensor]]:
    """The encoder's shape and tensors, from the released file or from one of its tensors.

    Raises:
        DataError: if there is no such file, it is damaged, or it is something else.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(
            f"{path} does not exist; give the released encoder.pkl of DALL-E's tokenizer with --objective.target.path"
        )
    tensors = _boxed(file) if file.suffix == ".pkl" else read_file(file).tensors
    try:
        codes, width = len(tensors["blocks.output.conv.w"]), len(tensors["blocks.input.w"])
    except KeyError as missing:
        raise DataError(
            f"{path} is not the encoder of DALL-E's tokenizer (it has no {missing.args[0]}); the released file is called "
            "encoder.pkl"
        ) from None
    depth = sum(
        name.startswith("blocks.group_1.") and name.endswith("conv_1.w") for name in tensors
    )
    return Shape(codes, width, depth), tensors


def _boxed(file: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals([(_Box, name) for name in _BOXED]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise damaged(file, error) from None
    return dict(content.tensors()) if isinstance(content, _Box) else {}
