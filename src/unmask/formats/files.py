"""Files of tensors and the JSON files next to them. Only tensors and plain values are ever unpickled."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unmask.errors import DataError
from unmask.formats.model import ModelSpec, read_spec
from unmask.spec import to_json
from unmask.tensors import save_tensors

NOTE = "unmask"
"""Key of the `ModelSpec`, as JSON, in the metadata of a file."""

_NAMES = ("model.safetensors", "encoder.safetensors", "pytorch_model.bin")
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
_STATE_KEYS = ("model", "state_dict")  # keys under which torch files keep the tensors


class TensorFile(NamedTuple):
    """Tensors with their names in the file, and everything that describes them."""

    path: Path
    tensors: dict[str, Tensor]
    spec: ModelSpec | None
    """The spec that this package wrote into the file."""
    config: dict[str, Any]
    """`config.json` in the same folder; empty if there is none."""
    preprocessor: dict[str, Any]
    """`preprocessor_config.json` in the same folder; empty if there is none."""


def read_file(path: Path) -> TensorFile:
    """The tensors of a file, or of the weight file in a folder.

    Raises:
        DataError: if there are no tensors, the file is damaged, or it contains code.
        RunError: if a newer version of this package wrote it.
    """
    file = _weights_in(path) if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path} does not exist; give a run folder, a weight file, or its folder")
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
        _read_json(file, "config.json"),
        _read_json(file, "preprocessor_config.json"),
    )


def _weights_in(folder: Path) -> Path:
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DataError(
            f"{folder} is neither a run folder (no spec.json) nor a folder with one weight file "
            f"(found: {names}); give the file"
        )
    return files[0]


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, (opened.metadata() or {}).get(NOTE)
    except (OSError, SafetensorError) as error:
        raise damaged(file, error) from None


def _read_torch(file: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with warnings.catch_warnings(action="ignore"):  # the error below says it all
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(file):
            raise damaged(file, error) from None
        raise DataError(
            f"{file} is a pickle with more than tensors ({_refused_class(error)}). Unpickling it could run any code, so "
            f'it is not read. If you trust its source, save only its tensors:\npython -c "import torch; c = '
            f"torch.load('{file}', weights_only=False); torch.save({{'model': c['model']}}, 'tensors.pth')\""
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise damaged(file, error) from None
    note = content.get(NOTE) if isinstance(content, dict) else None
    for name in _STATE_KEYS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    tensors = content if isinstance(content, dict) else {}
    tensors = {str(k): tensor for k, tensor in tensors.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise DataError(
            f"{file} has no named tensors; unmask expects a state dict, at the top or under "
            f"{' or '.join(map(repr, _STATE_KEYS))}"
        )
    return tensors, note if isinstance(note, str) else None


def _is_pickle(file: Path) -> bool:
    """Whether a file is a complete torch archive, or starts like a pickle."""
    with file.open("rb") as opened:
        return zipfile.is_zipfile(file) or opened.read(1) == b"\x80"


def _refused_class(error: pickle.UnpicklingError) -> str:
    """The class in a pickle that torch refused."""
    words = str(error).split("GLOBAL ")
    return words[1].split()[0] if len(words) > 1 else "an object of its own"


def damaged(file: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read as weights."""
    reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
    return DataError(
        f"{file} is damaged, incompletely downloaded, or not a weight file ({reason}); download it again and "
        "compare its size"
    )


def _read_json(file: Path, name: str) -> dict[str, Any]:
    """The content of a JSON file in the same folder; empty if there is none."""
    path = file.parent / name
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}, next to the weights, cannot be read ({error}); repair or remove it"
        ) from None
    return content if isinstance(content, dict) else {}


def save_safetensors(file: Path, tensors: dict[str, Tensor], spec: ModelSpec) -> None:
    """Write tensors with their spec in the metadata."""
    save_tensors(tensors, file, {"format": "pt", NOTE: json.dumps(to_json(spec))})


def save_torch(file: Path, tensors: dict[str, Tensor], spec: ModelSpec) -> None:
    """Write {"model": tensors} and the spec, readable with `weights_only=True`."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    torch.save({"model": contiguous, NOTE: json.dumps(to_json(spec))}, file)


def save_json(file: Path, content: dict[str, Any]) -> None:
    """Write a file of settings."""
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
