"""Read the tensors of DALL-E's released `encoder.pkl`, a pickled module.

torch's restricted unpickler reads it, with an empty placeholder for each class that the file names. So none of their code is
run or needed.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmask.errors import DataError, listed
from unmask.formats.describe import differences
from unmask.formats.files import read_file
from unmask.formats.torch_files import load_torch, refuse_larger
from unmask.targets.dalle import DalleEncoder


class Shape(NamedTuple):
    """The shape of a DALL-E encoder."""

    codes: int
    width: int
    depth: int
    """Blocks per group."""


class _Placeholder:
    """Stands for a class that the file names; keeps the state of its object."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


_MOST_MODULES = 10_000  # far more than the encoder has
_LONGEST_NAME = 1_000  # characters; its longest name has 45

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
        codes, width = (
            tensors[name].shape[0] for name in ("blocks.output.conv.w", "blocks.input.w")
        )
    except IndexError:
        raise DataError(
            f"{path} is not the encoder of DALL-E's tokenizer: a tensor is one number"
        ) from None
    except KeyError as missing:
        raise DataError(
            f"{path} is not the encoder of DALL-E's tokenizer (it has no {missing.args[0]}); the released file is called "
            "encoder.pkl"
        ) from None
    depth = sum(
        name.startswith("blocks.group_1.") and name.endswith("conv_1.w") for name in tensors
    )
    with torch.device("meta"):
        expected = DalleEncoder(codes, width, depth).state_dict()
    if clauses := differences(expected, tensors):
        raise DataError(f"{path} is not the encoder of DALL-E's tokenizer: {listed(clauses)}")
    return Shape(codes, width, depth), tensors


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """All parameters of the module in a file, by name."""
    with torch.serialization.safe_globals([(_Placeholder, name) for name in _CLASSES]):
        content = load_torch(file)
    tensors: dict[str, Tensor] = {}
    modules: list[tuple[str, Any]] = [("", content)]
    for prefix, module in modules:  # it grows meanwhile
        state = module.state if isinstance(module, _Placeholder) else {}
        for name, tensor in _entries(state, "_parameters"):
            if isinstance(tensor, Tensor):
                tensors[f"{prefix}{name}"] = tensor.detach()
        modules += [(f"{prefix}{name}.", child) for name, child in _entries(state, "_modules")]
        if len(modules) > _MOST_MODULES or len(prefix) > _LONGEST_NAME:
            raise DataError(
                f"{file} has modules inside of modules without end, so it is not the encoder of DALL-E's tokenizer"
            )
    refuse_larger(file, sum(tensor.nbytes for tensor in tensors.values()), file.stat().st_size)
    return {name: tensor.float() for name, tensor in tensors.items()}


def _entries(state: Any, key: str) -> list[tuple[str, Any]]:
    entries = state.get(key) if isinstance(state, dict) else None
    return list(entries.items()) if isinstance(entries, dict) else []
