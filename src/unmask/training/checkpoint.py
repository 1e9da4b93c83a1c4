"""Checkpoints: writing, checking and reading.

A checkpoint is a folder `step-0000042` with safetensors files and an `info.json` with their checksums. Nothing in it is ever
unpickled. It is written under a temporary name and then renamed, so a half-written one is never read. If one is damaged later,
its checksums differ, and the checkpoint before it is used.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unmask.errors import DataError, ResourceError, RunError, SettingsError
from unmask.files import read_json, sync, sync_folder, write_whole
from unmask.spec import from_json, to_json
from unmask.tensors import save_tensors
from unmask.training.distributed import everyones, here, like
from unmask.traits import Accompanied

FORMAT = 1
_KEEP = 2  # checkpoints: if the newest is damaged, the one before it is still there
_WRITING = ".writing-"  # start of the temporary name of a folder
_PART = "-part-"

LOSS_SCALE = "training/loss_scale"
"""The file of a checkpoint with the scale of the loss, if it is scaled."""

COMPANIONS = "training/companions"
"""The file of a checkpoint with tensors that only training needs, such as a teacher."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """The content of `info.json`."""

    format: int
    """Version of this layout; a newer one is refused."""

    step: int
    """Number of steps taken."""

    images_seen: int
    """Number of images shown, repeated ones included."""

    torch_version: str
    """Version of torch that wrote it; another version may round differently."""

    spec_hash: str
    """Hash of the run's `spec.json`."""

    checksums: dict[str, str]
    """SHA-256 of every file."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    """Its folder."""

    info: CheckpointInfo
    """Content of its `info.json`."""

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file: encoder, model or training/optimizer; concatenated, if it is in parts."""
        names = sorted(part for part in self.info.checksums if part.startswith(f"{name}{_PART}"))
        try:
            files = [load_file(self.folder / f"{part}.safetensors") for part in names or [name]]
        except (OSError, SafetensorError) as error:
            raise RunError(f"{self.folder / name}.safetensors cannot be read ({error})") from None
        tensors = {key: [file[key] for file in files if key in file] for key in files[0]}
        return {
            k: parts[0] if len(parts) == 1 else torch.cat(parts) for k, parts in tensors.items()
        }

    def read_if_there(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file that not every run has; empty without it."""
        return self.read(name) if name in self.info.checksums else {}


def fill(module: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    """Load the tensors of a checkpoint in this folder into its module.

    Raises:
        RunError: if they are not those of the module.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = lines[1] if len(lines) > 1 else lines[0]
        raise RunError(
            f"{folder} does not hold the model that the run's spec.json describes ({reason[:200]}); one of them was "
            "changed"
        ) from None


def part_name(name: str, number: int, parts: int) -> str:
    """The name of one of several files that together hold the rows of the same tensors.

    A tensor without rows, such as a step count, is only in the first file.
    """
    return f"{name}{_PART}{number:05d}-of-{parts:05d}"


class Saving:
    """A checkpoint that a thread writes to the disk while training continues.

    If several processes share a model, each writes its part, and the first process renames the folder once all parts are
    written.
    """

    def __init__(
        self,
        root: Path,
        parts: dict[str, dict[str, Tensor]],
        *,
        step: int,
        images_seen: int,
        spec_hash: str,
        metadata: dict[str, str],
        shared: bool = False,
    ) -> None:
        """Start writing.

        Args:
            root: the folder of all checkpoints.
            parts: the tensors of each file; must not change until they are written (see `snapshot`).
            step, images_seen, spec_hash: see `CheckpointInfo`.
            metadata: of every file.
            shared: whether processes share the model; then all of them must create this object.
        """
        self.root, self.parts, self.metadata, self.shared = root, parts, metadata, shared
        self.step, self.images_seen, self.spec_hash = step, images_seen, spec_hash
        self.final = root / f"step-{step:07d}"
        self.writing = root / f"{_WRITING}{self.final.name}"
        self.checksums: dict[str, str] = {}
        self.error: str | None = None
        if not shared or here().first:
            self._catch_errors(partial(clear_unfinished_checkpoints, root))
        if shared:
            everyones("cleared")  # a barrier: nobody writes before the first process has cleared
        self.thread = Thread(target=partial(self._catch_errors, self._write), name="saving")
        self.thread.start()

    @property
    def done(self) -> bool:
        """Whether this process has written its part, or failed to."""
        return not self.thread.is_alive()

    def finish(self) -> Path:
        """Wait until everything is written and renamed; all processes of a shared checkpoint must call it.

        Raises:
            ResourceError: if the disk is full or not writable; earlier checkpoints stay.
        """
        self.thread.join()
        if self.shared:
            for checksums, error in everyones((self.checksums, self.error)):
                self.checksums |= checksums
                self.error = self.error or error
            if here().first:
                self._catch_errors(self._publish)
            self.error = everyones(self.error)[0]
        if self.error is not None:
            raise ResourceError(
                f"the checkpoint of step {self.step} could not be written to {self.root} "
                f"({self.error}); earlier checkpoints are intact. Make room on that disk, then continue "
                "with --resume"
            )
        return self.final

    def _catch_errors(self, work: Callable[[], None]) -> None:
        """Run something and keep its error for `finish`: an exception in the thread would be lost."""
        try:
            if self.error is None:
                work()
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self.writing, ignore_errors=True)
            self.error = str(error)

    def _write(self) -> None:
        for name, tensors in self.parts.items():
            path = self.writing / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(tensors, path, self.metadata)
            sync(path)
            self.checksums[name] = _checksum(path)
        self.parts = {}
        if not self.shared:
            self._publish()

    def _publish(self) -> None:
        """Rename the checkpoint, then delete all but the last two."""
        info = CheckpointInfo(
            format=FORMAT,
            step=self.step,
            images_seen=self.images_seen,
            torch_version=torch.__version__,
            spec_hash=self.spec_hash,
            checksums=self.checksums,
        )
        text = json.dumps(to_json(info), indent=1)
        write_whole(
            self.writing / "info.json", lambda path: path.write_text(text, encoding="utf-8")
        )
        shutil.rmtree(self.final, ignore_errors=True)  # a damaged checkpoint of the same step
        self.writing.rename(self.final)
        sync_folder(self.root)
        folders = _folders(self.root)
        later = [f for f in folders if _step(f) > self.step]  # damaged, so not resumed
        earlier = [f for f in folders if _step(f) <= self.step]
        for old in later + earlier[:-_KEEP]:
            shutil.rmtree(old, ignore_errors=True)


def snapshot(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, which further training does not change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def encoder_of(model: dict[str, Tensor], *special: str) -> dict[str, Tensor]:
    """The encoder's tensors among those of a model; `special` is the prefix of their names, if unusual."""
    # if weights are averaged, the average is evaluated
    prefixes = (*special, "average.copies.encoder.", "encoder.")
    prefix = next(p for p in prefixes if any(name.startswith(p) for name in model))
    return {n.removeprefix(prefix): t for n, t in model.items() if n.startswith(prefix)}


def files_of(state: dict[str, Tensor], trained: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The weight files of a checkpoint: encoder, model, and tensors that only training needs, if any."""
    if not isinstance(trained, Accompanied):
        return {"encoder": encoder_of(state), "model": state}
    companions = {n: t for n, t in state.items() if n.startswith(trained.companions)}
    model = {name: tensor for name, tensor in state.items() if name not in companions}
    return {"encoder": encoder_of(state, trained.gives), "model": model, COMPANIONS: companions}


def at(root: Path, step: int) -> Checkpoint:
    """The checkpoint of a step; its checksums are not verified."""
    folder = root / f"step-{step:07d}"
    return Checkpoint(folder, _read_info(folder))


def newest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint (None if there is none), and the problems of newer ones.

    Raises:
        RunError: if the newest one was written by a newer version of this package.
    """
    damaged: list[str] = []
    for folder in reversed(_folders(root)):
        try:
            info = _read_info(folder)
            files = {name: folder / f"{name}.safetensors" for name in info.checksums}
            bad = next(
                (n for n, file in files.items() if _checksum(file) != info.checksums[n]), None
            )
        except (OSError, DataError, SettingsError) as error:
            damaged.append(f"{folder}: cannot be read ({error})")
            continue
        if bad is None:
            return Checkpoint(folder, info), damaged
        damaged.append(f"{folder}: {bad}.safetensors is damaged (its checksum differs)")
    return None, damaged


def clear_unfinished_checkpoints(root: Path) -> None:
    """Delete unfinished checkpoints of killed processes."""
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.glob(f"{_WRITING}*"):
        shutil.rmtree(folder)


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
    """Restore the state from `optimizer_tensors`; the optimizer must have the same parameter groups as then."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    by_name: dict[str, dict[str, Tensor]] = {}
    for name_and_key, value in tensors.items():
        name, _, key = name_and_key.rpartition(":")
        by_name.setdefault(name, {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        number: {key: like(value, p) for key, value in by_name[names[p]].items()}
        for number, p in enumerate(parameters)
        if names[p] in by_name
    }
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _folders(root: Path) -> list[Path]:
    folders = [path for path in root.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
    return sorted(folders, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _read_info(folder: Path) -> CheckpointInfo:
    data = read_json(folder / "info.json")
    version = data.get("format") if isinstance(data, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise RunError(
            f"{folder} has checkpoint format {version}, and this unmask reads up to "
            f"{FORMAT}; install a newer unmask"
        )
    info = from_json(CheckpointInfo, data)
    if outside := [name for name in info.checksums if ".." in name or Path(name).is_absolute()]:
        raise DataError(f"{folder}: info.json names a file outside of the checkpoint: {outside[0]}")
    return info


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
