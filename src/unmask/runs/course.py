"""How far a run is, and where it ends: after a number of steps, or when its time is over.

A run with a time (`Run.minutes`) begins with an estimate of its steps. After every fiftieth of them the first process
measures how fast it was and decides again at which step the run ends. It goes by the median of the last three measurements, of
which the first is what was expected, so that a single pause does not move the end. The learning rate follows the share of the run that is
done, which goes on from where it is to 1 at the new end, so it never jumps. Each decision is logged, so a resumed run
repeats those before its checkpoint.
"""

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from statistics import median_low
from typing import NamedTuple

from unmask.runs.run import Run
from unmask.training.distributed import everyones

_DECISIONS = 50  # in a run
_MEASUREMENTS = 3
_ENDING = 0.004, 1.0
"""Share of the time, and at least so many seconds, that the last checkpoint and the last words take."""

ENDS = "ends"
"""Field of the log: the step at which the run was then to end."""

ELAPSED = "elapsed"
"""Field of the log: seconds of work since the command was entered, without the pauses of a stopped run."""


class _Decision(NamedTuple):
    step: int
    done: float
    """Share of the run that is done at this step."""
    steps: int
    """The end, from then on."""


class Course:
    """Where a run stands and where it ends; a `training.loop.Course`."""

    def __init__(
        self, run: Run, lines: list[dict[str, float]], first_step: int, entered: float
    ) -> None:
        """`lines` are those of the log; `entered` is when the command was entered (`time.monotonic`)."""
        self._run, self._first = run, first_step
        self._decisions = [_Decision(0, 0.0, run.steps)]
        self._every = max(1, run.steps // _DECISIONS)
        self._began = entered
        """When the work began, if it had no pauses."""
        self._measured: tuple[int, float] | None = None
        """Step and time of the last decision of this process."""
        self._seconds = deque[float](maxlen=_MEASUREMENTS)
        """For a step: as expected when this process began, and measured between its decisions."""
        if run.minutes is not None:
            self._repeat([line for line in lines if line["step"] <= first_step])

    @property
    def steps(self) -> int:
        """The step at which the run ends, as decided last."""
        return self._decisions[-1].steps

    def done(self, step: int) -> float:
        """The share of the run that is done before a step, counted from 0."""
        number = bisect_right(self._decisions, step, key=lambda each: each.step) - 1
        last = self._decisions[number]
        return last.done + (1 - last.done) * (step - last.step) / (last.steps - last.step)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        recipe = self._run.recipe
        if self._run.minutes is None:
            return self._run.rate(step)
        epoch = self.done(step) * recipe.epochs
        return recipe.schedule.rate(epoch, recipe.epochs, recipe.batch_size)

    def due(self, step: int) -> bool:
        """Whether the end is decided again after this step; the first step of a process is slow, so from then on."""
        regular = step % self._every == 0 or step == self._first + 1
        return self._run.minutes is not None and regular and step < self.steps

    def decide(self, step: int) -> dict[str, float]:
        """Decide the end after a step; returns fields for the log. All processes must call this."""
        now, steps = time.monotonic(), self.steps
        if self._measured is None:
            self._seconds.append(max(self._left(now), 1e-9) / (steps - step))
        else:
            before, then = self._measured
            self._seconds.append(max(now - then, 1e-9) / (step - before))
            steps = max(step + 1, step + round(self._left(now) / median_low(self._seconds)))
        steps, elapsed = everyones((steps, now - self._began))[0]
        self._measured = step, now
        self._decisions.append(_Decision(step, self.done(step), steps))
        return {ENDS: steps, ELAPSED: round(elapsed, 3)}

    def _left(self, now: float) -> float:
        assert self._run.minutes is not None
        return seconds_left(self._run.minutes, self._began, now)

    def _repeat(self, lines: list[dict[str, float]]) -> None:
        """Take over the decisions of earlier processes, and the time that they worked."""
        worked, at = 0.0, 0
        for line in lines:
            if ENDS in line:
                at, worked = int(line["step"]), line[ELAPSED]
                self._decisions.append(_Decision(at, self.done(at), int(line[ENDS])))
        images = self._run.recipe.batch_size
        worked += sum(images / line["images_per_second"] for line in lines if line["step"] > at)
        self._began -= worked


def end_of(run: Run, lines: Sequence[dict[str, float]]) -> int:
    """The step at which a run with these lines of the log ends, as decided last."""
    return next((int(line[ENDS]) for line in reversed(lines) if ENDS in line), run.steps)


def seconds_left(minutes: float, began: float, now: float) -> float:
    """Seconds for the steps of a run that began at a time (`time.monotonic`), without those for its ending."""
    share, least = _ENDING
    return 60 * minutes - max(60 * minutes * share, least) - (now - began)
