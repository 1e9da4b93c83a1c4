"""Checks of a run's log and rate: divergence, a loss that stands still, collapse, waiting for images."""

import math
from collections.abc import Sequence
from statistics import mean

from unmask.doctor.finding import Finding
from unmask.recipes import Recipe
from unmask.recipes.by_time import peak
from unmask.runs.collapse import collapse
from unmask.runs.course import end_of
from unmask.runs.run import Run
from unmask.training.logbook import LOADING_MATTERS
from unmask.training.optimizers import AdamW

Lines = Sequence[dict[str, float]]

# steps after the warm-up before a loss tells something; on circuit boards 164 were too few
_ENOUGH = 200
_DEAD = 0.985  # share of the dead loss; a healthy run of normalised patches is below it within a few hundred steps
_LAST = 0.1  # share of the steps whose mean is the loss at the end
_JUMP = 1.3  # the loss at the end relative to the best of the run
_TOO_HIGH, _TOO_LOW = 12.0, 1 / 25  # peak rate relative to the usual one at this batch


def diverged(lines: Lines) -> Finding:
    """Whether the loss became NaN or infinite."""
    bad = next((line for line in lines if not math.isfinite(line["loss"])), None)
    if bad is None:
        return Finding("fine", "divergence", f"the loss is finite in all {len(lines):,} steps")
    return Finding(
        "fault", "divergence", f"the loss of step {bad['step']:.0f} is {bad['loss']}, at a rate of {bad['learning_rate']:.3g}",
        "the weights would be lost, so the run stopped there",
        "half of --schedule.base-lr, a longer --schedule.warmup-epochs, or --precision float32",
    )  # fmt: skip


def level(lines: Lines) -> float:
    """The mean loss of the last tenth of the steps."""
    count = max(1, round(_LAST * len(lines)))
    return mean(line["loss"] for line in lines[-count:])


def after_warmup(lines: Lines) -> int:
    """Steps since the rate was highest for the first time."""
    rates = [line["learning_rate"] for line in lines]
    return len(rates) - 1 - rates.index(max(rates))


def too_early(lines: Lines) -> bool:
    """Whether too few steps have followed the warm-up for loss and guesses to tell something."""
    return not lines or after_warmup(lines) < _ENOUGH


def learns(
    lines: Lines, now: float, where: str, dead: float | None, *, related: bool = False
) -> Finding:
    """Whether the loss is below that of a model that guesses the same for every patch.

    `now` is the loss, and `where` says where it was measured; `dead` is what such a model has there, None if it is not
    known; `related` is whether guesses have something to do with the truth.
    """
    if dead is None:
        return Finding(
            "note", "loss", f"{now:.4g} {where}; what a dead run of this kind has is not known"
        )
    seen = f"{now:.4g} {where}; a model that guesses the same everywhere has {dead:.4g}"
    if now < _DEAD * dead:
        return Finding("fine", "loss", seen)
    if too_early(lines):
        return Finding(
            "note",
            "loss",
            seen,
            f"only {after_warmup(lines)} steps since the warm-up: too early to tell",
            "train longer",
            "possible",
        )
    return Finding(
        "fault", "loss", seen,
        "nothing about the hidden patches is learnt",
        "see the other findings"
        + ("" if related else "; if they are fine, targets and images do not belong together (your own target or transform?)"),
        "likely",
    )  # fmt: skip


def stable(lines: Lines) -> Finding:
    """Whether the loss stayed near its best."""
    losses = [line["loss"] for line in lines if math.isfinite(line["loss"])]
    window = max(1, len(losses) // 20)
    means = [mean(losses[start : start + window]) for start in range(0, len(losses), window)]
    if len(means) < 5 or means[-1] <= _JUMP * min(means):
        return Finding("fine", "stability", "the loss stays near its best")
    return Finding(
        "warning", "stability", f"the loss was {min(means):.4g} and rose to {means[-1]:.4g}",
        "training forgot what it had learnt, most often because the rate is too high",
        "half of --schedule.base-lr, or a longer warm-up",
        "likely",
    )  # fmt: skip


def rate(recipe: Recipe) -> list[Finding]:
    """The highest rate against the usual one at this batch size; only for AdamW."""
    if not isinstance(recipe.optimizer, AdamW):
        return []
    highest, usual = recipe.schedule.peak(recipe.batch_size), peak(recipe.batch_size)
    times = highest / usual
    seen = (
        f"at most {highest:.2g} with batches of {recipe.batch_size:,}; usual is about {usual:.2g}"
    )
    if _TOO_LOW <= times <= _TOO_HIGH:
        return [Finding("fine", "learning rate", seen)]
    word = f"{times:.0f} times as high" if times > 1 else f"{1 / times:.0f} times as low"
    return [
        Finding(
            "warning", "learning rate", f"{seen}: {word}",
            "training diverges or stands still" if times > 1 else "hardly anything is learnt in the time",
            f"--schedule.base-lr {usual * 256 / recipe.batch_size:.2g}",
            "likely",
        )
    ]  # fmt: skip


def collapsed(lines: Lines, steps: int) -> list[Finding]:
    """The last check of the embedding, if there was one."""
    looks = [line for line in lines if "effective_rank" in line]
    if not looks:
        return []
    last = looks[-1]
    seen = f"effective rank {last['effective_rank']:.1f} of {last['possible_rank']:.0f} at step {last['step']:.0f}"
    if (reason := collapse(last, steps)) is None:
        return [Finding("fine", "embedding", seen)]
    return [
        Finding(
            "fault", "embedding", reason, "the encoder hardly distinguishes images",
            "half of --schedule.base-lr; for methods that compare views, a larger batch or its centring and temperatures",
            "likely",
        )
    ]  # fmt: skip


def waiting(lines: Lines) -> list[Finding]:
    """Whether training waits for images."""
    shares = [line["waiting"] for line in lines if "waiting" in line]
    if not shares:
        return []
    share = mean(shares)
    seen = f"{share:.0%} of the time is spent waiting for images"
    if share <= LOADING_MATTERS:
        return [Finding("fine", "loading", seen)]
    return [
        Finding(
            "note", "loading", seen, "the processor that trains is idle in that time",
            "more --workers, or `unmask pack` once; `unmask bench --data DATA` measures it",
        )
    ]  # fmt: skip


def of_log(run: Run, lines: Lines) -> list[Finding]:
    """The checks that need the log alone."""
    findings = [
        diverged(lines),
        stable(lines),
        *collapsed(lines, end_of(run, lines)),
        *waiting(lines),
    ]
    if isinstance(run.recipe, Recipe):
        findings += rate(run.recipe)
    return findings
