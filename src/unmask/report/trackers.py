"""Trackers that get the lines of a run's log: one small protocol, and a failing tracker never stops training."""

import json
import shlex
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import NamedTuple, Protocol

from unmask.errors import ResourceError, SettingsError, did_you_mean, first_line
from unmask.files import read_object, write_text
from unmask.report import sinks
from unmask.report.settings import settings
from unmask.runs.folder import RunFolder
from unmask.runs.results import read_results
from unmask.runs.run import Run

_AT_ONCE = 1
"""Lines that are sent of those that are written together, once a second; they share their times."""

_OF_A_LOG = 10_000
"""Lines that are sent of a whole log."""


class Sink(Protocol):
    """A tracker that is open for a run."""

    def log(self, step: int, fields: dict[str, float]) -> None:
        """Take the fields of a step."""
        ...

    def close(self) -> str:
        """End; returns the identifier with which the run is continued, empty for none."""
        ...


class Kind(NamedTuple):
    """A tracker."""

    module: str
    """What is imported."""
    install: str
    """How to install it."""
    open: Callable[[sinks.Place], Sink]
    """Opens it for a run."""
    look: str
    """The command that shows what it has, where {root} is the folder of the run."""


TRACKERS: dict[str, Kind] = {
    "tensorboard": Kind(
        "tensorboard",
        "pip install tensorboard",
        sinks.TensorBoard,
        "tensorboard --logdir {root}/tensorboard",
    ),
    "mlflow": Kind(
        "mlflow",
        "pip install mlflow-skinny",
        sinks.MLflow,
        "MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {root}/mlruns",
    ),
    "trackio": Kind(
        "trackio",
        "pip install trackio",
        sinks.Trackio,
        "TRACKIO_DIR={root}/trackio trackio show --project unmask",
    ),
    "wandb": Kind(
        "wandb", "pip install wandb", sinks.Wandb, "wandb sync {root}/wandb/offline-run-*"
    ),
}
"""The known trackers."""


def tracker_names(words: str | None) -> tuple[str, ...]:
    """The trackers in a list such as "tensorboard,mlflow", checked.

    Raises:
        SettingsError: for a name that is not known.
        ResourceError: for a package that is missing.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (words or "").split(",") if name.strip()))
    if words is not None and not names:
        raise SettingsError(f"which tracker? one or several of {', '.join(TRACKERS)}")
    for name in names:
        if name not in TRACKERS:
            raise SettingsError(f"unknown tracker {name!r}; {did_you_mean(name, TRACKERS)}")
        kind = TRACKERS[name]
        spec = find_spec(kind.module)
        if (
            spec is None or spec.origin is None
        ):  # a folder of that name, such as ./wandb, is no package
            raise ResourceError(
                f"the tracker {name} is not installed; install it with `{kind.install}`"
            )
    return names


def look_at(name: str, folder: RunFolder) -> str:
    """The command that shows the run of a folder in a tracker."""
    return TRACKERS[name].look.format(root=shlex.quote(str(folder.root)))


class Trackers:
    """The open trackers of a run."""

    def __init__(
        self,
        names: Sequence[str],
        run: Run,
        folder: RunFolder,
        first_step: int,
        say: Callable[[str], object],
    ) -> None:
        """Open them; they continue their own run if this one continues from `first_step`. `say` prints a note."""
        self._folder, self._say, self._score_types = folder, say, run.job.score_types
        self._open: dict[str, Sink] = {}
        known = read_object(folder.tracked) if names and first_step else {}
        for name in names:
            place = sinks.Place(
                folder.root.absolute(),
                run.job.command,
                settings(run),
                first_step,
                str(known.get(name, "")),
            )
            with self._guarded(name):
                self._open[name] = TRACKERS[name].open(place)

    def log(self, lines: list[dict[str, float]], most: int = _AT_ONCE) -> None:
        """Send lines of the log: the last of them, every line with more fields than the one before, or `most` of them."""
        if not lines or not self._open:
            return
        for line in _sparse(lines, most):
            fields = {name: value for name, value in line.items() if name != "step"}
            for name in list(self._open):
                with self._guarded(name):
                    self._open[name].log(int(line["step"]), fields)

    def log_all(self, lines: list[dict[str, float]]) -> None:
        """Send a whole log."""
        self.log(lines, _OF_A_LOG)

    def log_score(self, step: int) -> None:
        """Send the measures of the score in the run's folder, such as test/mIoU; nothing if it has none."""
        for name in list(self._open):
            with self._guarded(name):
                found = read_results(self._folder, self._score_types)
                measures = () if found is None else found.score.measures()
                fields = {
                    f"test/{one.name}": one.value
                    for one in measures
                    if one.value is not None and one.better is not None
                }
                if fields:
                    self._open[name].log(step, fields)

    def close(self, *, keep: bool = True) -> None:
        """Close them, and keep the identifiers of their runs for `--resume`, unless these are copies."""
        known = read_object(self._folder.tracked) if self._open else {}
        changed = dict(known)
        for name in list(self._open):
            with self._guarded(name):
                if identifier := self._open[name].close():
                    changed[name] = identifier
        if keep and changed != known:
            with suppress(OSError):
                write_text(self._folder.tracked, json.dumps(changed, indent=1) + "\n")

    @property
    def names(self) -> tuple[str, ...]:
        """The trackers that have not failed."""
        return tuple(self._open)

    @contextmanager
    def _guarded(self, name: str) -> Generator[None]:
        """Around each call of a tracker: an error turns this tracker off."""
        try:
            yield
        except Exception as error:  # whatever a library raises, training goes on
            self._open.pop(name, None)
            self._say(
                f"the tracker {name} failed ({first_line(error)}) and is off; log.jsonl has everything"
            )


def _sparse(lines: list[dict[str, float]], most: int) -> list[dict[str, float]]:
    """At most so many lines, spread evenly up to the last one; and every line with a check of the embedding."""
    step = -(-len(lines) // most)
    last = len(lines) - 1
    return [
        line
        for place, line in enumerate(lines)
        if (last - place) % step == 0 or "effective_rank" in line
    ]
