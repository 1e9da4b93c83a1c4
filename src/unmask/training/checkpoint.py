"""What is saved, where, and how it is read back.

A checkpoint is a folder `step-0000042` of safetensors files and an `info.json` with their
checksums. It is written beside its final name and renamed, so that a half-written one is never
read; one that was damaged later is found out by its checksums, and the one before it is used.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmask.errors import ResourceError, RunError, SettingsError
from unmask.spec import from_json, to_json

FORMAT = 1
_KEPT = 2
_WRITING = ".writing-"


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """The content of `info.json`."""

    format: int
    """Version of this layout; a newer one is refused."""

    step: int
    """Steps taken so far."""

    images_seen: int
    """Images shown so far, each crop counting once."""

    torch_version: str
    """The torch that wrote it; another one may round differently."""

    spec_hash: str
    """Hash of the run's `spec.json`."""

    checksums: dict[str, str]
    """SHA-256 of every file."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are whole."""

    folder: Path
    """Where it lies."""

    info: CheckpointInfo
    """What it says of itself."""

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of its files: encoder, model or training/optimizer."""
        return load_file(self.folder / f"{name}.safetensors")

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Put weights and optimizer back as they were; the step to go on from."""
        module.load_state_dict(self.read("model"))
        restore_optimizer(optimizer, module, self.read("training/optimizer"))
        return self.info.step


def write(
    root: Path,
    parts: dict[str, dict[str, Tensor]],
    *,
    step: int,
    images_seen: int,
    spec_hash: str,
    metadata: dict[str, str],
) -> Path:
    """Write a checkpoint below `root`, then drop all but the last two.

    Raises:
        ResourceError: if the disk is full or cannot be written; earlier checkpoints stay.
    """
    final = root / f"step-{step:07d}"
    writing = root / f"{_WRITING}{final.name}"
    try:
        clear_unfinished(root)
        checksums = {
            name: _write_part(writing / f"{name}.safetensors", tensors, metadata)
            for name, tensors in parts.items()
        }
        info = CheckpointInfo(
            format=FORMAT,
            step=step,
            images_seen=images_seen,
            torch_version=torch.__version__,
            spec_hash=spec_hash,
            checksums=checksums,
        )
        _write_text(writing / "info.json", json.dumps(to_json(info), indent=1))
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        writing.rename(final)
        _sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(writing, ignore_errors=True)
        raise ResourceError(
            f"the checkpoint of step {step} could not be written to {root} ({error}); earlier ones "
            "are whole. Make room on that disk, then continue with --resume"
        ) from None
    later = [
        folder for folder in _folders(root) if _step(folder) > step
    ]  # damaged ones, passed over
    earlier = [folder for folder in _folders(root) if _step(folder) <= step]
    for old in later + earlier[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint (None if there is none), and what is wrong with newer ones.

    Raises:
        RunError: if the newest was written by a newer version of this package.
    """
    damaged: list[str] = []
    for folder in reversed(_folders(root)):
        problem, info = _check(folder)
        if info is not None:
            return Checkpoint(folder, info), damaged
        damaged.append(f"{folder}: {problem}")
    return None, damaged


def clear_unfinished(root: Path) -> None:
    """Remove what a killed process left half-written."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{_WRITING}*"):
        shutil.rmtree(left)


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as tensors named PARAMETER:KEY."""
    names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
    return {
        f"{names[parameter]}:{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave; its groups must be built as they were."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    state: dict[int, dict[str, Tensor]] = {}
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition(":")
        by_name.setdefault(name, {})[part] = value
    for number, parameter in enumerate(listed):
        if names[parameter] in by_name:
            state[number] = by_name[names[parameter]]
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _folders(root: Path) -> list[Path]:
    found = [path for path in root.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _check(folder: Path) -> tuple[str, CheckpointInfo | None]:
    try:
        data = json.loads((folder / "info.json").read_text())
        version = data.get("format") if isinstance(data, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise RunError(
                f"{folder} has checkpoint format {version}, and this unmask reads up to "
                f"{FORMAT}; install a newer unmask"
            )
        info = from_json(CheckpointInfo, data)
        for name, checksum in info.checksums.items():
            if _checksum(folder / f"{name}.safetensors") != checksum:
                return f"{name}.safetensors is damaged (its checksum differs)", None
    except (OSError, ValueError, SettingsError) as error:
        return f"cannot be read ({error})", None
    return "", info


def _write_part(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, metadata)
    _sync(path)
    return _checksum(path)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
