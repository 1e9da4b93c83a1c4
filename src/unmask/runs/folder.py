"""The folder of a run: its spec, log, checkpoints, and the lock that keeps a second run out."""

import fcntl
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask.errors import ResourceError, RunError, SettingsError
from unmask.files import is_unfinished, write_whole
from unmask.runs.run import Run
from unmask.runs.tokenizer import TOKENIZER, TokenizerRun
from unmask.runs.transfer import PURPOSE, AnyRun, TransferRun
from unmask.spec import to_json
from unmask.training import checkpoint
from unmask.training.checkpoint import Checkpoint, Saving
from unmask.training.distributed import here, own_parts, whole
from unmask.traits import Accompanied

COMPANIONS = "training/companions"
"""The file of a checkpoint for what serves training alone, such as a teacher."""

_UNBORN = (".spec.json", "statistics.json")  # the first was the temporary name in older versions


class RunFolder:
    """Paths and contents of a run's folder."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.spec = self.root / "spec.json"
        self.statistics = self.root / "statistics.json"
        self.log = self.root / "log.jsonl"
        self.results = self.root / "results.json"
        self.set_aside = self.root / "set_aside.csv"
        self.checkpoints = self.root / "checkpoints"
        self.features = self.root / "features"
        self.evaluations = self.root / "evaluations"

    def create(self, run: AnyRun) -> None:
        """Make the folder and write the spec.

        Raises:
            RunError: if a run is there already.
            ResourceError: if the folder cannot be written.
        """
        self.check_free()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.statistics.write_text(json.dumps(to_json(run.statistics), indent=1) + "\n")
            spec = json.dumps(to_json(run), indent=1) + "\n"
            write_whole(self.spec, lambda path: path.write_text(spec))
        except OSError as error:
            raise ResourceError(
                f"{self.root} cannot be written ({error.strerror}); choose another folder with --out"
            ) from None

    def check_free(self) -> None:
        """Refuse a folder that holds a run or something else, or that cannot be made."""
        if self.spec.exists():
            raise RunError(
                f"{self.root} already holds a run; continue it with `unmask {self.command()} --resume "
                f"{self.root}`, or choose another folder with --out"
            )
        if self.root.exists() and (not self.root.is_dir() or self._holds_more_than_a_start()):
            raise RunError(f"{self.root} exists and is not empty; choose another folder with --out")
        there = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ResourceError(
                f"{self.root} cannot be written ({there} is no folder that may be written to); "
                "choose another folder with --out"
            )

    def _holds_more_than_a_start(self) -> bool:
        """Whether there is anything beside what a process killed while creating a run leaves."""
        return any(
            path.name not in _UNBORN and not is_unfinished(path) for path in self.root.iterdir()
        )

    def read(self) -> Run:
        """The run of pretraining in this folder.

        Raises:
            RunError: if there is none, or it is damaged or from a newer version.
        """
        data = self._data()
        if _purpose(data) == TOKENIZER:
            raise RunError(
                f"{self.root} is a tokenizer, which has no encoder; an encoder learns from its codes with `unmask "
                f"pretrain DATA objective.target:tokenizer --objective.target.path {self.root}`"
            )
        if _purpose(data) == PURPOSE:
            raise RunError(
                f"{self.root} is a run of fine-tuning, which has no recipe of pretraining; see `unmask "
                f"finetune --resume {self.root}` and `unmask predict {self.root}`"
            )
        try:
            return Run.read(data)
        except SettingsError as error:
            raise self._unreadable(error) from None

    def read_transfer(self) -> TransferRun:
        """The run of fine-tuning in this folder.

        Raises:
            RunError: if there is none, or it is damaged or from a newer version.
        """
        data = self._data()
        if _purpose(data) == TOKENIZER:
            raise RunError(f"{self.root} is a tokenizer, without classes or an encoder")
        if _purpose(data) != PURPOSE:
            raise RunError(
                f"{self.root} is a run of pretraining, without classes; make a classifier of it with "
                f"`unmask finetune {self.root} DATA`"
            )
        try:
            return TransferRun.read(data)
        except SettingsError as error:
            raise self._unreadable(error) from None

    def read_tokenizer(self) -> TokenizerRun:
        """The tokenizer's run in this folder.

        Raises:
            RunError: if there is none, or it is damaged or from a newer version.
        """
        if not self.spec.exists():
            raise RunError(
                f"{self.root} holds no tokenizer (no spec.json){self.nearby()}; make one with `unmask tokenizer DATA "
                "--out TOK`"
            )
        try:
            data = self._data()
            if _purpose(data) == TOKENIZER:
                return TokenizerRun.read(data)
        except SettingsError as error:
            raise self._unreadable(error) from None
        raise RunError(
            f"{self.root} holds no tokenizer but a run of `unmask {self.command()}`; make a tokenizer with `unmask "
            "tokenizer DATA --out TOK`"
        )

    def is_transfer(self) -> bool:
        """Whether it holds a run of fine-tuning."""
        return self.spec.exists() and _purpose(self._data()) == PURPOSE

    def command(self) -> str:
        """The command that makes such runs."""
        try:
            return _purpose(self._data()) or "pretrain"
        except RunError:
            return "pretrain"

    def _data(self) -> Any:
        if not self.spec.exists():
            raise RunError(f"{self.root} holds no run (no spec.json){self.nearby()}")
        try:
            return json.loads(self.spec.read_text())
        except ValueError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> RunError:
        return RunError(f"{self.spec} cannot be read: {error}")

    def nearby(self) -> str:
        """A clause naming the runs beside this folder; empty if there are none."""
        near = [str(path.parent) for path in sorted(self.root.parent.glob("*/spec.json"))][:5]
        return f"; runs nearby: {', '.join(near)}" if near else ""

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and a line for each damaged one passed over."""
        return checkpoint.newest(self.checkpoints)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, which another process has found whole."""
        return checkpoint.at(self.checkpoints, step)

    def save(
        self, run: AnyRun, step: int, trained: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Write a checkpoint, and wait for it."""
        saving = self.begin_save(run, step, trained, optimizer, copy=False)
        if saving is not None:
            saving.finish()

    def begin_save(
        self,
        run: AnyRun,
        step: int,
        trained: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        copy: bool,
    ) -> Saving | None:
        """Begin to write a checkpoint of what is now; with a copy of it, training may go on meanwhile.

        Of several processes all must call it; without shards the first alone writes. The encoder apart is
        that of the average, where weights are averaged.
        """
        processes, shard = here(), run.hardware.shard
        kept = checkpoint.snapshot if copy else dict
        model = whole(trained.state_dict()) if shard or processes.first else {}
        parts: dict[str, dict[str, torch.Tensor]] = {}
        if processes.first:
            state = kept(model)
            parts = {"model": state} if isinstance(run, TokenizerRun) else _parts_of(state, trained)
        tensors = checkpoint.optimizer_tensors(optimizer, trained)
        if shard:
            name = checkpoint.part_name("training/optimizer", processes.rank, processes.count)
            parts[name] = kept(own_parts(tensors))
        elif processes.first:
            parts["training/optimizer"] = kept(tensors)
        else:
            return None
        return Saving(
            self.checkpoints,
            parts,
            checkpoint.information(step, run.images_seen(step), run.hash),
            _metadata(run),
            shared=shard,
        )

    @contextmanager
    def lock(self) -> Generator[None]:
        """Hold the folder; the system lets go of it even if this process is killed.

        Raises:
            RunError: if another process holds it, naming that process.
        """
        path = self.root / "lock"
        with path.open("a+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise RunError(
                    f"{self.root} is in use by {file.read().strip() or 'another process'}; "
                    "wait for it or stop it, or choose another folder with --out"
                ) from None
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield


def _purpose(data: Any) -> str | None:
    """What a `spec.json` is of; None for pretraining."""
    purpose = data.get("purpose") if isinstance(data, dict) else None
    return purpose if purpose in (PURPOSE, TOKENIZER) else None


def _metadata(run: AnyRun) -> dict[str, str]:
    """What every weight file of a run bears."""
    model = {} if isinstance(run, TokenizerRun) else {"unmask": json.dumps(to_json(run.model))}
    return {**model, "run": json.dumps(to_json(run))}


def _parts_of(
    state: dict[str, torch.Tensor], trained: nn.Module
) -> dict[str, dict[str, torch.Tensor]]:
    """The files of a model: its encoder, the whole of it, and what accompanies its training, if anything."""
    if not isinstance(trained, Accompanied):
        return {"encoder": encoder_of(state), "model": state}
    beside = {name: t for name, t in state.items() if name.startswith(trained.companions)}
    model = {name: tensor for name, tensor in state.items() if name not in beside}
    return {"encoder": encoder_of(state, trained.gives), "model": model, COMPANIONS: beside}


def encoder_of(model: dict[str, torch.Tensor], *given: str) -> dict[str, torch.Tensor]:
    """The tensors of the encoder to take away, of all those of a model; `given` is what their names begin with, if unusual."""
    prefixes = (*given, "average.copies.encoder.", "encoder.")
    prefix = next(p for p in prefixes if any(name.startswith(p) for name in model))
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in model.items()
        if name.startswith(prefix)
    }
