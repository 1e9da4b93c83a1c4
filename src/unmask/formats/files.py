"""Files of tensors and the JSON files next to them. Only tensors and plain values are ever unpickled."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unmask.asked import divided
from unmask.errors import DataError, ResourceError, first_line, listed
from unmask.files import read_json
from unmask.formats.model import ModelSpec, read_spec
from unmask.formats.shards import (
    ENDING,
    check_places,
    is_index,
    refuse_one_of_several,
    shards_of,
)
from unmask.formats.torch_files import damaged, load_torch, refuse_larger
from unmask.formats.wrappers import unwrapped
from unmask.spec import to_json
from unmask.tensors import save_tensors

NOTE = "unmask"
"""Key of the `ModelSpec`, as JSON, in the metadata of a file."""

_NAMES = (
    *("model.safetensors", "encoder.safetensors", f"model.safetensors{ENDING}"),
    *("pytorch_model.bin", f"pytorch_model.bin{ENDING}"),
)
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ENDING)
_MOST_TENSORS = 100_000  # far more than a ViT has; each takes memory, however small it is


class TensorFile(NamedTuple):
    """Tensors with their names in the file, and everything that describes them."""

    path: Path
    tensors: dict[str, Tensor]
    """In float32, if they are floating-point numbers."""
    spec: ModelSpec | None
    """The spec that this package wrote into the file."""
    config: dict[str, Any]
    """`config.json` in the same folder; empty if there is none."""
    preprocessor: dict[str, Any]
    """`preprocessor_config.json` in the same folder; empty if there is none."""
    notes: tuple[str, ...] = ()
    """What a user should know of how the tensors were read."""


class _Read(NamedTuple):
    """The content of a file: tensors, or a torch file's entries; and our description."""

    content: Any
    note: str | None
    held: int
    """Bytes of the file."""


def read_file(path: Path) -> TensorFile:
    """The tensors of a file, of the weight file in a folder, or of all files that an index names.

    Several models in one file are told apart by a word after a colon, `FILE:WORD`; see `wrappers`.

    Raises:
        DataError: if there are no tensors, the file is damaged, or it contains code.
        ResourceError: if there is too little memory for the tensors.
        RunError: if a newer version of this package wrote it.
    """
    path, word = divided(path)
    file = _weights_in(path) if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path} does not exist; give a run folder, a weight file, or its folder")
    if not is_index(file):
        refuse_one_of_several(file)
    content, note, held = _read_shards(file) if is_index(file) else _read_one(file)
    tensors, notes = unwrapped(file, content, word)
    _refuse_lies(file, tensors, held)
    floats, half = _as_float32(file, tensors)
    return TensorFile(
        file,
        floats,
        None if note is None else read_spec(note, file),
        _beside(file, "config.json"),
        _beside(file, "preprocessor_config.json"),
        (*notes, *half),
    )


def _weights_in(folder: Path) -> Path:
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(file for file in folder.iterdir() if file.name.endswith(_ENDINGS))
    if len(files) != 1:
        for file in files:
            refuse_one_of_several(file)
        names = listed(file.name for file in files) or "none"
        raise DataError(
            f"{folder} is neither a run folder (no spec.json) nor a folder with one weight file "
            f"(found: {names}); give the file"
        )
    return files[0]


def _read_shards(index: Path) -> _Read:
    """The tensors of all files that an index names."""
    tensors: dict[str, Tensor] = {}
    note, held = None, 0
    for file, names in shards_of(index).items():
        read = _read_one(file)
        own = read.content if _is_safe(file) else unwrapped(file, read.content, strip=False).tensors
        check_places(index, file, own, names)
        tensors |= own
        note, held = note or read.note, held + read.held
    return _Read(tensors, note, held)


def _read_one(file: Path) -> _Read:
    return _read_safetensors(file) if _is_safe(file) else _read_torch(file)


def _refuse_lies(file: Path, tensors: dict[str, Tensor], held: int) -> None:
    """Refuse tensors that the bytes of their files cannot hold, before anything copies them."""
    _refuse_many(file, len(tensors))
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise DataError(
                f"{file} has a tensor without plain values ({name}: {tensor.layout}, {tensor.device}); save dense "
                "tensors of the CPU"
            )
    refuse_larger(file, sum(tensor.nbytes for tensor in tensors.values()), held)


def _refuse_many(file: Path, count: int) -> None:
    if count > _MOST_TENSORS:
        raise DataError(f"{file} has {count:,} tensors; unmask reads up to {_MOST_TENSORS:,}")


def _is_safe(file: Path) -> bool:
    return file.suffix == ".safetensors"


def _read_safetensors(file: Path) -> _Read:
    try:
        with safe_open(file, "pt") as opened:
            names = opened.keys()
            _refuse_many(file, len(names))
            tensors = {name: opened.get_tensor(name) for name in names}
            return _Read(tensors, (opened.metadata() or {}).get(NOTE), file.stat().st_size)
    except (OSError, SafetensorError, MemoryError, RuntimeError, ValueError) as error:
        raise damaged(file, error) from None


def _read_torch(file: Path) -> _Read:
    content = load_torch(file)
    note = content.get(NOTE) if isinstance(content, dict) else None
    return _Read(content, note if isinstance(note, str) else None, file.stat().st_size)


def _as_float32(file: Path, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Floating-point tensors in float32, and a note on those that had another type."""
    others = {
        str(tensor.dtype).removeprefix("torch.")
        for tensor in tensors.values()
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    note = f"the weights are {listed(sorted(others))} in the file, and are read into float32"
    try:
        floats = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
    except (RuntimeError, MemoryError) as error:
        needed = sum(tensor.numel() for tensor in tensors.values()) * torch.float32.itemsize
        reason = first_line(error)[:120]
        raise ResourceError(
            f"the tensors of {file} need {needed / 2**30:,.1f} GiB of memory in float32, which could not be had "
            f"({reason})"
        ) from None
    return floats, [note] if others else []


def _beside(file: Path, name: str) -> dict[str, Any]:
    """The content of a JSON file in the same folder; empty if there is none."""
    path = file.parent / name
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except (OSError, DataError) as error:
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
    try:
        torch.save({"model": contiguous, NOTE: json.dumps(to_json(spec))}, file)
    except RuntimeError as error:  # torch's words for a full disk
        raise OSError(first_line(error)) from None


def save_json(file: Path, content: dict[str, Any]) -> None:
    """Write a file of settings."""
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
