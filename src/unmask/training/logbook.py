"""The log of a run: one JSON line per step in `log.jsonl`.

Losses stay on the device until lines are written, every few steps and before each checkpoint. A loss that is not finite is
noticed then, so that it never gets into a checkpoint.
"""

import json
import math
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from unmask.contracts import StepReport
from unmask.errors import DataError, DivergedError, ResourceError
from unmask.files import parse_json, write_text
from unmask.training.distributed import here, mean
from unmask.training.step_cost import Meter

TIMES = ("images_per_second", "waiting", "flops_per_second", "mfu", "peak_memory")
"""Fields that differ between identical runs; all others are exact.

Lines written together have the same values: a GPU works asynchronously, so only the total time between two readings of losses
is known."""

LOADING_MATTERS = 0.1
"""Share of the time that waiting for images (or loading them on the cores that train) takes, above which it is said."""

_NEEDED = ("step", "loss")  # in the line of a step


class Logbook:
    """Appends to a log, after removing the lines past `step`, the last checkpoint.

    With several processes, all must make the same calls; the first process writes the means over all.
    """

    def __init__(self, path: Path, step: int, meter: Meter) -> None:
        self.path, self.meter = path, meter
        self._pending: list[tuple[StepReport, float]] = []
        self._notes: dict[int, dict[str, float]] = {}
        if not here().first:
            return
        lines = [line for line in read_log(path) if line["step"] <= step]
        with _room_for(path):
            write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, report: StepReport, seconds: float) -> None:
        """Add a step that took this many seconds; `write` writes it."""
        self._pending.append((report, seconds))

    def note(self, step: int, fields: dict[str, float]) -> None:
        """Add fields to the line of a step; like the loss, they must not differ between identical runs without a time."""
        self._notes[step] = self._notes.get(step, {}) | fields

    def write(self) -> list[dict[str, float]]:
        """Write and return the lines of the steps added since the last call.

        Raises:
            DivergedError: for the first step whose loss is not finite; lines up to it are written.
        """
        if not self._pending:
            return []
        reading = time.perf_counter()
        exact = _exact_fields([report for report, _ in self._pending])  # waits for the device
        seconds = sum(seconds for _, seconds in self._pending) + time.perf_counter() - reading
        figures = self.meter.figures([report for report, _ in self._pending], seconds)
        lines = [
            {**line, **self._notes.get(report.step, {}), **figures}
            for (report, _), line in zip(self._pending, exact, strict=True)
        ]
        self._pending, self._notes = [], {}
        if not here().first:
            return lines
        bad = next((line for line in lines if not math.isfinite(line["loss"])), None)
        with _room_for(self.path), self.path.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line) + "\n")
                if line is bad:
                    break
        if bad is not None:
            raise DivergedError(
                f"the loss of step {bad['step']:.0f} is {bad['loss']} at a learning rate of "
                f"{bad['learning_rate']:.3g}, so training stopped; nothing was saved after it. Most likely the "
                "learning rate is too high (try half of --schedule.base-lr) or the warm-up too short, or the model "
                "needs --precision float32"
            )
        return lines


@contextmanager
def _room_for(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written ({error.strerror}); make room on that disk, then continue "
            "with --resume"
        ) from None


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of steps in a log; others are skipped, such as an incomplete one that a killed process has left."""
    if not path.exists():
        return []
    lines: list[dict[str, float]] = []
    for content in path.read_bytes().splitlines():
        with suppress(DataError):
            line = parse_json(content, str(path))
            if isinstance(line, dict) and all(_is_number(line.get(name)) for name in _NEEDED):
                lines.append(line)
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exact_fields(reports: list[StepReport]) -> list[dict[str, float]]:
    """The exact fields of steps. All losses are averaged over processes and read from the device in one operation."""
    losses = [loss for report in reports for loss in (report.loss, *report.parts.values())]
    means = iter(mean(torch.stack(losses)).tolist())
    return [
        {
            "step": report.step,
            **{name: next(means) for name in ("loss", *report.parts)},
            "learning_rate": report.learning_rate,
            **_scaling(report),
        }
        for report in reports
    ]


def _scaling(report: StepReport) -> dict[str, float]:
    """How the loss was scaled, and whether the step was skipped; nothing where losses are not scaled."""
    if report.loss_scale is None:
        return {}
    return {"loss_scale": report.loss_scale, "skipped": float(report.skipped)}
