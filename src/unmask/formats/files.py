"""Files of tensors, with what lies beside them. Nothing is ever unpickled but tensors and plain values."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unmask.errors import DataError
from unmask.formats.model import ModelSpec, read_spec
from unmask.spec import to_json

NOTE = "unmask"
"""Under which name a file bears its `ModelSpec` as JSON."""

_NAMES = ("model.safetensors", "encoder.safetensors", "pytorch_model.bin")
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
_INSIDE = ("model", "state_dict")  # where torch files keep the tensors


class TensorFile(NamedTuple):
    """Tensors under the names that they have in the file, and all that is told of them."""

    path: Path
    tensors: dict[str, Tensor]
    spec: ModelSpec | None
    """What this package wrote with them."""
    config: dict[str, Any]
    """`config.json` beside the file; empty if there is none."""
    preprocessor: dict[str, Any]
    """`preprocessor_config.json` beside the file; empty if there is none."""


def read_file(path: Path) -> TensorFile:
    """The tensors of a file, or of the weights in a folder.

    Raises:
        DataError: if there are none, the file is damaged, or it holds code.
        RunError: if a newer version of this package wrote it.
    """
    file = _weights_in(path) if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path} does not exist; give a run, a file of weights, or a folder of one")
    is_safe = file.suffix == ".safetensors"
    tensors, note = _read_safetensors(file) if is_safe else _read_torch(file)
    floats = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    return TensorFile(
        file,
        floats,
        None if note is None else read_spec(note, file),
        _json_beside(file, "config.json"),
        _json_beside(file, "preprocessor_config.json"),
    )


def _weights_in(folder: Path) -> Path:
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS)
    if len(found) != 1:
        there = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"{folder} is neither a run (no spec.json) nor a folder with one file of weights "
            f"(found: {there}); name the file"
        )
    return found[0]


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, (opened.metadata() or {}).get(NOTE)
    except (OSError, SafetensorError) as error:
        raise damaged(file, error) from None


def _read_torch(file: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with warnings.catch_warnings(action="ignore"):  # one message is ours below
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(file):
            raise damaged(file, error) from None
        raise DataError(
            f"{file} is a pickle that wants more than tensors ({_wanted(error)}), and unpickling such "
            "things can run any code, so it is not read. If you trust where it comes from, save its "
            f"tensors alone: python -c \"import torch; c = torch.load('{file}', weights_only=False); "
            "torch.save({'model': c['model']}, 'tensors.pth')\""
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise damaged(file, error) from None
    note = content.get(NOTE) if isinstance(content, dict) else None
    for name in _INSIDE:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    tensors = content if isinstance(content, dict) else {}
    tensors = {str(k): tensor for k, tensor in tensors.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise DataError(
            f"{file} holds no tensors by name; expected a state dict, or one under "
            f"{' or '.join(map(repr, _INSIDE))}"
        )
    return tensors, note if isinstance(note, str) else None


def _is_pickle(file: Path) -> bool:
    """Whether it is a whole torch archive, or at least begins as pickles do."""
    with file.open("rb") as opened:
        return zipfile.is_zipfile(file) or opened.read(1) == b"\x80"


def _wanted(error: pickle.UnpicklingError) -> str:
    """The class that the refused pickle names."""
    words = str(error).split("GLOBAL ")
    return words[1].split()[0] if len(words) > 1 else "an object of its own"


def damaged(file: Path, error: Exception) -> DataError:
    """What to say of a file that cannot be read as weights."""
    reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
    return DataError(
        f"{file} is damaged, half-downloaded, or no file of weights ({reason}); fetch it again and "
        "compare its size"
    )


def _json_beside(file: Path, name: str) -> dict[str, Any]:
    path = file.parent / name
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}, beside the weights, cannot be read ({error}); mend or remove it"
        ) from None
    return content if isinstance(content, dict) else {}


def save_safetensors(file: Path, tensors: dict[str, Tensor], spec: ModelSpec) -> None:
    """Write tensors with their spec in the metadata."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, file, {"format": "pt", NOTE: json.dumps(to_json(spec))})


def save_torch(file: Path, tensors: dict[str, Tensor], spec: ModelSpec) -> None:
    """Write {"model": tensors} and the spec beside them, readable with `weights_only=True`."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    torch.save({"model": whole, NOTE: json.dumps(to_json(spec))}, file)


def save_json(file: Path, content: dict[str, Any]) -> None:
    """Write a file of settings."""
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
