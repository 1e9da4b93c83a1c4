"""Read the tensors of DALL-E's released `encoder.pkl`, a pickled module.

torch's restricted unpickler reads it, with an empty placeholder for each class that the file names. So none of their code is
run or needed.
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
    """The shape of a DALL-E encoder."""

    codes: int
    width: int
    depth: int
    """Blocks per group."""


class _Placeholder:
    """Stands for a class that the file names; keeps the state of its object."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All parameters of the module, by name."""
        for name, tensor in self.state.get("_parameters", {}).items():
            if isinstance(tensor, Tensor):
                yield prefix + name, tensor.detach().float()
        for name, child in self.state.get("_modules", {}).items():
            if isinstance(child, _Placeholder):
                yield from child.tensors(f"{prefix}{name}.")


_CLASSES = [
    "dall_e.encoder.Encoder",
    "dall_e.encoder.EncoderBlock",
    "dall_e.utils.Conv2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.pooling.MaxPool2d",
]


def read_dalle(path: str) -> tuple[Shape, dict[str, Tensor]]:
    """The encoder's shape and tensors, from the released file or a file of its tensors.

    Raises:
        DataError: if the file does not exist, is damaged, or is not this encoder.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(
            f"{path} does not exist; set --objective.target.path to the released encoder.pkl of DALL-E's tokenizer"
        )
    tensors = _read_pickle(file) if file.suffix == ".pkl" else read_file(file).tensors
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


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals([(_Placeholder, name) for name in _CLASSES]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise damaged(file, error) from None
    return dict(content.tensors()) if isinstance(content, _Placeholder) else {}
