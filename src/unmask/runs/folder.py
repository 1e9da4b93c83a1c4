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

from unmask.errors import ResourceError, RunError
from unmask.files import is_unfinished, write_whole
from unmask.runs.encoder_weights import files_of
from unmask.runs.version_1 import migrated
from unmask.spec import to_json
from unmask.training import checkpoint
from unmask.training.checkpoint import Checkpoint, Saving
from unmask.training.distributed import here, own_parts, whole

SPEC_VERSION = 2
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

    def create(self, run: Any) -> None:
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

    def read_spec(self, command: str | None = None) -> dict[str, Any]:
        """The content of `spec.json`, in today's version; `command` must have made it, if given.

        Raises:
            RunError: if there is none, or it is damaged, from a newer version, or of another command.
        """
        if not self.spec.exists():
            if command == "tokenizer":
                raise RunError(
                    f"{self.root} holds no tokenizer (no spec.json){self.nearby()}; make one with "
                    "`unmask tokenizer DATA --out TOK`"
                )
            raise RunError(f"{self.root} holds no run (no spec.json){self.nearby()}")
        try:
            data = json.loads(self.spec.read_text())
        except ValueError as error:
            raise self.unreadable(error) from None
        if not isinstance(data, dict):
            raise self.unreadable(f"expected an object, got {type(data).__name__}")
        data = self._in_version_2(data)
        made_by = _command_of(data)
        if command is not None and made_by != command:
            raise RunError(_OTHER[command, made_by].format(root=self.root))
        return data

    def _in_version_2(self, data: dict[str, Any]) -> dict[str, Any]:
        version = data.get("spec_version")
        if isinstance(version, int) and version > SPEC_VERSION:
            raise RunError(
                f"this run's spec.json has version {version}, and this unmask reads up to "
                f"{SPEC_VERSION}; install a newer unmask"
            )
        return migrated(data) if version == 1 else data

    def made_by(self, command: str) -> bool:
        """Whether it holds a run of this command."""
        return self.spec.exists() and _command_of(self.read_spec()) == command

    def command(self) -> str:
        """The command that makes such runs."""
        try:
            return _command_of(self.read_spec())
        except RunError:
            return "pretrain"

    def unreadable(self, error: object) -> RunError:
        """The error to raise where `spec.json` says what cannot be understood."""
        return RunError(f"{self.spec} cannot be read: {error}")

    def nearby(self) -> str:
        """A clause naming the runs beside this folder; empty if there are none."""
        near = [str(path.parent) for path in sorted(self.root.parent.glob("*/spec.json"))][:5]
        return f"; runs nearby: {', '.join(near)}" if near else ""

    def write_results(self, results: dict[str, Any]) -> None:
        """Keep what was scored beside the run; the first process writes."""
        if here().first:
            self.results.write_text(json.dumps(results, indent=1) + "\n")

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and a line for each damaged one passed over."""
        return checkpoint.newest(self.checkpoints)

    def newest_whole(self) -> tuple[Checkpoint, tuple[str, ...]]:
        """The newest whole checkpoint, and a line for each damaged one passed over.

        Raises:
            RunError: if there is none.
        """
        checkpoint, damaged = self.newest()
        if checkpoint is None:
            why = f"all are damaged ({damaged[0]})" if damaged else "none is written yet"
            raise RunError(f"{self.root} has no checkpoint to load: {why}")
        return checkpoint, tuple(damaged)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, which another process has found whole."""
        return checkpoint.at(self.checkpoints, step)

    def save(
        self, run: Any, step: int, trained: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Write a checkpoint, and wait for it."""
        saving = self.begin_save(run, step, trained, optimizer, copy=False)
        if saving is not None:
            saving.finish()

    def begin_save(
        self,
        run: Any,
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
            alone = run.job.model(run) is None
            parts = {"model": state} if alone else files_of(state, trained)
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


def _command_of(data: dict[str, Any]) -> str:
    """The command that made a run, by the content of its `spec.json` in version 2."""
    job = data.get("job")
    kind = job.get("kind") if isinstance(job, dict) else None
    return {"finetune": "finetune", "tokenize": "tokenizer"}.get(str(kind), "pretrain")


_OTHER = {
    ("pretrain", "finetune"): "{root} is a run of fine-tuning, which has no recipe of pretraining; "
    "see `unmask finetune --resume {root}` and `unmask predict {root}`",
    (
        "pretrain",
        "tokenizer",
    ): "{root} is a tokenizer, which has no encoder; an encoder learns from "
    "its codes with `unmask pretrain DATA objective.target:tokenizer --objective.target.path {root}`",
    (
        "finetune",
        "pretrain",
    ): "{root} is a run of pretraining, without classes; make a classifier of "
    "it with `unmask finetune {root} DATA`",
    ("finetune", "tokenizer"): "{root} is a tokenizer, without classes or an encoder",
    ("tokenizer", "pretrain"): "{root} holds no tokenizer but a run of `unmask pretrain`; make a "
    "tokenizer with `unmask tokenizer DATA --out TOK`",
    ("tokenizer", "finetune"): "{root} holds no tokenizer but a run of `unmask finetune`; make a "
    "tokenizer with `unmask tokenizer DATA --out TOK`",
}
"""What to say of a run, by the command that is wanted and the one that made it."""


def _metadata(run: Any) -> dict[str, str]:
    """What every weight file of a run bears."""
    model = run.job.model(run)
    described = {} if model is None else {"unmask": json.dumps(to_json(model))}
    return {**described, "run": json.dumps(to_json(run))}
