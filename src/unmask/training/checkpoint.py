"""What is saved, where, and how it is read back.

A checkpoint is a folder `step-0000042` of safetensors files and an `info.json` with their
checksums; nothing in it is ever unpickled. It is written beside its final name and renamed, so that a half-written one is never
read; one that was damaged later is found out by its checksums, and the one before it is used.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmask.errors import ResourceError, RunError, SettingsError
from unmask.files import sync, write_whole
from unmask.spec import from_json, to_json
from unmask.training.distributed import everyones, here, like

FORMAT = 1
_KEPT = 2
_WRITING = ".writing-"
_PART = "-part-"


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
        """The tensors of one of its files: encoder, model or training/optimizer; put together, if in parts."""
        parts = sorted(part for part in self.info.checksums if part.startswith(f"{name}{_PART}"))
        if not parts:
            return load_file(self.folder / f"{name}.safetensors")
        loaded = [load_file(self.folder / f"{part}.safetensors") for part in parts]
        return {key: _joined([part[key] for part in loaded if key in part]) for key in loaded[0]}

    def read_if_there(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file that not every run has; none without it."""
        return self.read(name) if name in self.info.checksums else {}


def part_name(name: str, number: int, parts: int) -> str:
    """The name of one of several files that hold the rows of the same tensors, in order.

    What is no table of rows, such as a count of steps, is in the first alone.
    """
    return f"{name}{_PART}{number:05d}-of-{parts:05d}"


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Saving:
    """A checkpoint on its way to the disk, written by a thread while training goes on.

    Of several processes that share a model, each writes its part and the first gives the folder its name once all
    are written.
    """

    def __init__(
        self,
        root: Path,
        parts: dict[str, dict[str, Tensor]],
        info: CheckpointInfo,
        metadata: dict[str, str],
        *,
        shared: bool = False,
    ) -> None:
        """`parts` must not change until it is written: see `snapshot`. All processes of a `shared` one must call it."""
        self.root, self.parts, self.info, self.metadata = root, parts, info, metadata
        self.shared = shared
        self.final = root / f"step-{info.step:07d}"
        self.writing = root / f"{_WRITING}{self.final.name}"
        self.checksums: dict[str, str] = {}
        self.error: str | None = None
        if not shared or here().first:
            self._noting_errors(partial(clear_unfinished, root))
        if shared:
            everyones("cleared")
        self.thread = Thread(target=partial(self._noting_errors, self._write), name="saving")
        self.thread.start()

    @property
    def done(self) -> bool:
        """Whether this process has written its part, or failed to."""
        return not self.thread.is_alive()

    def finish(self) -> Path:
        """Wait until all is written, and give the checkpoint its name; all processes of a shared one must call it.

        Raises:
            ResourceError: if the disk is full or cannot be written; earlier checkpoints stay.
        """
        self.thread.join()
        if self.shared:
            for checksums, error in everyones((self.checksums, self.error)):
                self.checksums |= checksums
                self.error = self.error or error
            if here().first:
                self._noting_errors(self._publish)
            self.error = everyones(self.error)[0]
        if self.error is not None:
            raise ResourceError(
                f"the checkpoint of step {self.info.step} could not be written to {self.root} "
                f"({self.error}); earlier ones are whole. Make room on that disk, then continue with "
                "--resume"
            )
        return self.final

    def _noting_errors(self, work: Callable[[], None]) -> None:
        try:
            if self.error is None:
                work()
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self.writing, ignore_errors=True)
            self.error = str(error)

    def _write(self) -> None:
        self.checksums = {
            name: _write_part(self.writing / f"{name}.safetensors", tensors, self.metadata)
            for name, tensors in self.parts.items()
        }
        self.parts = {}
        if not self.shared:
            self._publish()

    def _publish(self) -> None:
        """Name the checkpoint, then drop all but the last two."""
        info = replace(self.info, checksums=self.checksums)
        text = json.dumps(to_json(info), indent=1)
        write_whole(self.writing / "info.json", lambda path: path.write_text(text))
        shutil.rmtree(self.final, ignore_errors=True)  # a damaged one of the same step
        self.writing.rename(self.final)
        sync(self.root)
        step, folders = info.step, _folders(self.root)
        later = [folder for folder in folders if _step(folder) > step]  # damaged ones, passed over
        earlier = [folder for folder in folders if _step(folder) <= step]
        for old in later + earlier[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def information(step: int, images_seen: int, spec_hash: str) -> CheckpointInfo:
    """What a checkpoint says of itself, before its files are written."""
    return CheckpointInfo(
        format=FORMAT,
        step=step,
        images_seen=images_seen,
        torch_version=torch.__version__,
        spec_hash=spec_hash,
        checksums={},
    )


def write(
    root: Path,
    parts: dict[str, dict[str, Tensor]],
    *,
    step: int,
    images_seen: int,
    spec_hash: str,
    metadata: dict[str, str],
) -> Path:
    """Write a checkpoint below `root` and wait for it.

    Raises:
        ResourceError: if the disk is full or cannot be written; earlier checkpoints stay.
    """
    return Saving(root, parts, information(step, images_seen, spec_hash), metadata).finish()


def snapshot(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, which training does not change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def at(root: Path, step: int) -> Checkpoint:
    """The checkpoint of a step, not looked over again."""
    folder = root / f"step-{step:07d}"
    return Checkpoint(folder, _read_info(folder))


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
            found = by_name[names[parameter]]
            state[number] = {key: like(value, parameter) for key, value in found.items()}
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _folders(root: Path) -> list[Path]:
    found = [path for path in root.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _check(folder: Path) -> tuple[str, CheckpointInfo | None]:
    try:
        info = _read_info(folder)
        for name, checksum in info.checksums.items():
            if _checksum(folder / f"{name}.safetensors") != checksum:
                return f"{name}.safetensors is damaged (its checksum differs)", None
    except (OSError, ValueError, SettingsError) as error:
        return f"cannot be read ({error})", None
    return "", info


def _read_info(folder: Path) -> CheckpointInfo:
    data = json.loads((folder / "info.json").read_text())
    version = data.get("format") if isinstance(data, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise RunError(
            f"{folder} has checkpoint format {version}, and this unmask reads up to "
            f"{FORMAT}; install a newer unmask"
        )
    return from_json(CheckpointInfo, data)


def _write_part(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, metadata)
    sync(path)
    return _checksum(path)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
