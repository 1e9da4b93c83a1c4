"""The folder of a run: spec, log, checkpoints, and a lock against a second process."""

import json
import os
import shlex
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from unmask.asked import nearby, no_run
from unmask.encoders.vit import with_old_resampling
from unmask.errors import DataError, ResourceError, RunError, typed
from unmask.files import is_unfinished, read_json, unwritable, write_text
from unmask.locks import Taken, locked
from unmask.spec import to_json
from unmask.training import checkpoint
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import here

SPEC_VERSION = 4
_LEFTOVERS = (
    ".spec.json",
    "statistics.json",
)  # of a process killed in `create`; the first is from older versions


class RunFolder:
    """Paths and contents of a run's folder."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.spec = self.root / "spec.json"
        self.statistics = self.root / "statistics.json"
        self.log = self.root / "log.jsonl"
        self.results = self.root / "results.json"
        self.set_aside = self.root / "set_aside.csv"
        self.place = self.root / "place.json"
        self.names = self.root / "image_names.bin"
        self.checkpoints = self.root / "checkpoints"
        self.features = self.root / "features"
        self.evaluations = self.root / "evaluations"
        self.vectors = self.root / "vectors"
        self.looks = self.root / "looks"
        self.command_line = self.root / "command.txt"
        self.report = self.root / "report.html"
        self.tracked = self.root / "tracked.json"

    def create(self, run: Any) -> None:
        """Create the folder and write the spec.

        Raises:
            RunError: if the folder already holds a run.
            ResourceError: if the folder cannot be written.
        """
        self.check_free()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_text(self.statistics, json.dumps(to_json(run.statistics), indent=1) + "\n")
            write_text(self.spec, json.dumps(to_json(run), indent=1) + "\n")
        except OSError as error:
            raise ResourceError(
                f"{self.root} cannot be written ({error.strerror}); choose another folder with --out"
            ) from None

    def check_free(self) -> None:
        """Refuse a folder that is not empty or cannot be created."""
        if self.spec.exists():
            raise RunError(
                f"{self.root} already holds a run; continue it with "
                f"`{typed(self.command(), '--resume', self.root)}`, or choose another folder with --out"
            )
        check_empty(self.root)
        if reason := unwritable(self.root):
            raise ResourceError(
                f"{self.root} cannot be created ({reason}); choose another folder with --out"
            )

    def read_spec(self, *commands: str) -> dict[str, Any]:
        """The content of `spec.json`, migrated to the current version; `command` must have created it, if given.

        Raises:
            RunError: if it is missing, damaged, of a newer version, or of another command.
        """
        if not self.spec.exists():
            if commands == ("tokenizer",):
                raise RunError(
                    f"{self.root} holds no tokenizer (no spec.json){nearby(self.root)}; train one with "
                    "`unmask tokenizer DATA --out TOK`"
                )
            raise no_run(self.root)
        try:
            data = read_json(self.spec)
        except (DataError, OSError) as error:
            raise self.unreadable(error) from None
        if not isinstance(data, dict):
            raise self.unreadable(f"expected an object, got {type(data).__name__}")
        version = data.get("spec_version")
        if isinstance(version, int) and version > SPEC_VERSION:
            raise RunError(
                f"this run's spec.json has version {version}, and this unmask reads up to "
                f"{SPEC_VERSION}; install a newer unmask"
            )
        if version == 1:
            data = _migrated(data)
        if version in (1, 2):
            data = {**data, "spec_version": 3, "data": _read_as_before(data.get("data"))}
        if version in (1, 2, 3):
            data = {**data, "spec_version": 4, "job": _resampled_as_before(data.get("job"))}
        made_by = _command_of(data)
        if commands and made_by not in commands:
            raise RunError(
                _OTHER[commands[0], made_by].format(
                    root=self.root, word=shlex.quote(str(self.root))
                )
            )
        return data

    def made_by(self, command: str) -> bool:
        """Whether it holds a run of this command."""
        return self.spec.exists() and _command_of(self.read_spec()) == command

    def command(self) -> str:
        """The command that creates such runs."""
        try:
            return _command_of(self.read_spec())
        except RunError:
            return "pretrain"

    def unreadable(self, error: object) -> RunError:
        """The error for a `spec.json` that cannot be read."""
        return RunError(f"{self.spec} cannot be read: {error}")

    def write_results(self, results: dict[str, Any]) -> None:
        """Write `results.json`, in the first process."""
        if here().first:
            write_text(self.results, json.dumps(results, indent=1) + "\n")

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest complete checkpoint (None if there is none), and a line for each damaged one."""
        return checkpoint.newest(self.checkpoints)

    def newest_whole(self) -> tuple[Checkpoint, tuple[str, ...]]:
        """The newest complete checkpoint, and a line for each damaged one.

        Raises:
            RunError: if there is none.
        """
        checkpoint, damaged = self.newest()
        if checkpoint is None:
            why = f"all are damaged ({damaged[0]})" if damaged else "none is written yet"
            raise RunError(f"{self.root} has no checkpoint to load: {why}")
        return checkpoint, tuple(damaged)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, which another process has already checked."""
        return checkpoint.at(self.checkpoints, step)

    @contextmanager
    def lock(self) -> Generator[str]:
        """Lock the folder; the system releases the lock even if this process is killed.

        Yields a note if the file system has no locks; an empty one otherwise.

        Raises:
            RunError: if another process holds the lock; names that process.
            ResourceError: if the folder cannot be written.
        """
        with ExitStack() as stack:
            try:
                note = stack.enter_context(locked(self.root / "lock"))
            except Taken as holder:
                raise RunError(
                    f"{self.root} is in use by {holder}; wait for it or stop it, or choose another folder with --out"
                ) from None
            except OSError as error:
                raise self._read_only(error.strerror) from None
            yield note

    def check_writable(self) -> None:
        """Refuse to continue a run whose files this user may not change.

        Raises:
            ResourceError: with what to do instead.
        """
        for path in (self.root, self.root / "lock", self.log, self.checkpoints):
            if path.exists() and not os.access(path, os.W_OK):
                raise self._read_only(f"no permission for {path.name}")

    def _read_only(self, reason: str | None) -> ResourceError:
        root = shlex.quote(str(self.root))
        return ResourceError(
            f"{self.root} cannot be written ({reason}), so its run cannot continue there; copy it first "
            f"(`cp -r {root} COPY`) and continue the copy"
        )


def check_empty(root: Path) -> None:
    """Refuse a folder that holds other things than what a killed process leaves, and a file.

    Raises:
        RunError: with what to do instead.
    """
    if root.exists() and not (
        root.is_dir()
        and all(path.name in _LEFTOVERS or is_unfinished(path) for path in root.iterdir())
    ):
        raise RunError(f"{root} exists and is not empty; choose another folder with --out")


_JOBS = {"": "pretrain", "finetune": "finetune", "tokenizer": "tokenize"}
"""Job kinds by the `purpose` of version 1; pretraining had no purpose."""


def _migrated(data: dict[str, Any]) -> dict[str, Any]:
    """A spec of version 1, which differed for each kind of run, in version 2.

    Recipe, initial weights and classes move into `job`; other fields stay.
    """
    fields = {**data, "spec_version": 2}
    kind = _JOBS.get(str(fields.pop("purpose", "")), "pretrain")
    job = {"kind": kind, "recipe": fields.pop("recipe", None)}
    init = fields.pop("init", None)
    if kind != "tokenize":
        job["init"] = init
    if kind == "finetune":
        job["annotations"] = {"kind": "class", "names": fields.pop("classes", None)}
    return {**fields, "job": job}


def _read_as_before(source: Any) -> Any:
    """A source of version 1 or 2 with settings that read the files as these versions did."""
    if not isinstance(source, dict):
        return source
    if source.get("kind") == "labels-file":
        return {**source, "data": _read_as_before(source.get("data"))}
    old = {
        "folder": {"by_content": False},
        "tiff": {"frames": "bands", "photometric": False},
    }
    return {**source, **old.get(str(source.get("kind")), {})}


def _resampled_as_before(job: Any) -> Any:
    """A job of versions 1 to 3, whose encoder resamples its position tables as these versions did."""
    recipe = job.get("recipe") if isinstance(job, dict) else None
    if not isinstance(recipe, dict) or "encoder" not in recipe:  # a tokenizer has no encoder
        return job
    return {**job, "recipe": {**recipe, "encoder": with_old_resampling(recipe["encoder"])}}


def _command_of(data: dict[str, Any]) -> str:
    """The command that created a run, from the content of its `spec.json`, migrated."""
    job = data.get("job")
    kind = job.get("kind") if isinstance(job, dict) else None
    return {"finetune": "finetune", "tokenize": "tokenizer"}.get(str(kind), "pretrain")


_OTHER = {
    ("pretrain", "finetune"): "{root} is a fine-tuned run, not a pretraining run; "
    "use it with `unmask finetune --resume {word}` or `unmask predict {word}`",
    ("pretrain", "tokenizer"): "{root} is a tokenizer, which has no encoder; pretrain an encoder "
    "on its codes with `unmask pretrain DATA objective.target:tokenizer --objective.target.path {word}`",
    ("finetune", "pretrain"): "{root} is a pretraining run without classes; train a classifier "
    "with `unmask finetune {word} DATA`",
    ("finetune", "tokenizer"): "{root} is a tokenizer, which has no encoder and no classes; "
    "give the folder of a fine-tuned run",
    ("tokenizer", "pretrain"): "{root} is a run of `unmask pretrain`, not a tokenizer; train a "
    "tokenizer with `unmask tokenizer DATA --out TOK`",
    ("tokenizer", "finetune"): "{root} is a run of `unmask finetune`, not a tokenizer; train a "
    "tokenizer with `unmask tokenizer DATA --out TOK`",
}
"""Error messages by the command that is needed and the command that created the run."""
