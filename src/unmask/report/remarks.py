"""What the figures of a run say, in sentences: the first lines of its report."""

import math
from typing import Literal, NamedTuple

from unmask.data import Held
from unmask.errors import RunError, typed
from unmask.measures import Measure
from unmask.report.curves import Curves
from unmask.report.scores import judgements, set_aside
from unmask.runs.collapse import collapse
from unmask.runs.folder import RunFolder
from unmask.runs.results import read_results
from unmask.runs.run import Run
from unmask.training.logbook import LOADING_MATTERS

Mark = Literal["good", "warning", "plain"]

_ERRORS = 2.0
"""Standard errors by which two shares of images must differ to be called different."""


class Remark(NamedTuple):
    """A sentence about a run."""

    mark: Mark
    words: str


def remarks(run: Run, folder: RunFolder, curves: Curves, *, is_training: bool) -> list[Remark]:
    """All remarks on a run, from its log and from the files in its folder."""
    steps = curves.ends or run.steps
    every = [
        _state(run, folder, curves, steps, is_training),
        _loss(curves),
        _embedding(curves, steps),
        _neighbors(curves),
        _waiting(curves),
        _unusable(folder, run),
        _score(run, folder),
        *_evaluations(folder),
    ]
    return [remark for remark in every if remark is not None]


def _state(run: Run, folder: RunFolder, curves: Curves, steps: int, is_training: bool) -> Remark:
    if curves.diverged is not None:
        return Remark(
            "warning",
            f"Diverged: the loss of step {curves.diverged:,} is not finite, and nothing was saved after it. Try half of "
            "--schedule.base-lr.",
        )
    if curves.step >= steps:
        return Remark("good", f"Finished: all {steps:,} steps are done.")
    where = f"step {curves.step:,} of {steps:,}"
    if is_training:
        return Remark("plain", f"In training: {where} when this page was written.")
    if isinstance(run.data, Held):
        return Remark(
            "warning", f"Not finished: {where}. Continue from Python, with the same images."
        )
    again = typed(folder.command(), "--resume", folder.root)
    return Remark("warning", f"Not finished: {where}. Continue with: {again}")


def _loss(curves: Curves) -> Remark | None:
    first, last = curves.mean("loss", 0, 0.1), curves.mean("loss", 0.9, 1)
    if first is None or last is None or curves.step < 10:
        return None
    words = f"{first:.4g} in the first tenth of the steps and {last:.4g} in the last"
    if last < first:
        return Remark("good", f"The loss fell: {words}.")
    return Remark("warning", f"The loss did not fall: {words}.")


def _embedding(curves: Curves, steps: int) -> Remark | None:
    """Whether the embedding has collapsed, at the last check."""
    if not curves.checks:
        return None
    line = curves.checks[-1]
    reason = collapse(line, steps)
    if reason is not None:
        return Remark("warning", f"Collapsed at step {line['step']:,}: {reason}.")
    before = f" ({line['rank_random']:.1f} with random weights)" if "rank_random" in line else ""
    return Remark(
        "good",
        f"No collapse: the effective rank of the embedding is {line['effective_rank']:.1f} of "
        f"{line['possible_rank']:.0f}{before} at step {line['step']:,}.",
    )


def _neighbors(curves: Curves) -> Remark | None:
    """Whether near neighbours are more often of the same class than with random weights."""
    line = curves.checks[-1] if curves.checks else {}
    if not {"knn", "knn_random", "looked_at"} <= line.keys():
        return None
    now, before, images = line["knn"], line["knn_random"], line["looked_at"]
    error = math.sqrt((now * (1 - now) + before * (1 - before)) / images)
    words = (
        f"{now:.1%} of {images:.0f} images have the class of their nearest neighbours, {before:.1%} "
        "with random weights"
    )
    if abs(now - before) <= _ERRORS * error:
        return Remark("plain", f"k-NN shows no difference yet: {words}.")
    if now > before:
        return Remark("good", f"k-NN is better than with random weights: {words}.")
    return Remark("warning", f"k-NN is worse than with random weights: {words}.")


def _waiting(curves: Curves) -> Remark | None:
    waiting, speed = curves.mean("waiting"), curves.mean("images_per_second")
    if waiting is None or speed is None:
        return None
    words = f"{speed:,.0f} images/s, {waiting:.0%} of the time spent waiting for images"
    if waiting > LOADING_MATTERS:
        return Remark("warning", f"Loading slows training: {words}. More --workers may help.")
    return Remark("good", f"Loading keeps up: {words}.")


def _unusable(folder: RunFolder, run: Run) -> Remark | None:
    count = set_aside(folder).total
    if not count:
        return None
    share = count / (run.images + count)
    return Remark(
        "warning", f"{count:,} images ({share:.1%}) could not be used; they are listed below."
    )


def _score(run: Run, folder: RunFolder) -> Remark | None:
    """All measures; a warning if the main one is no better than without a trained model."""
    try:
        found = read_results(folder, run.job.score_types)
    except RunError as error:
        return Remark("warning", f"No score: {error}.")
    if found is None:
        return None
    measures = found.score.measures()
    words = ", ".join(_measure(one) for one in measures if one.value is not None)
    main = measures[0]
    if main.baseline is None or main.beats(main.baseline.value):
        return Remark("plain", f"Score: {words}.")
    return Remark(
        "warning",
        f"Score: {words}. The {main.name} is no better than that without a trained model ({main.baseline_words}).",
    )


def _measure(one: Measure) -> str:
    if one.unit == "count":
        return f"{one.words} {one.name}"
    return f"{one.name} {one.words}" + (f" ({one.baseline_words})" if one.baseline else "")


def _evaluations(folder: RunFolder) -> list[Remark]:
    marks: dict[str, Mark] = {"better": "good", "worse": "warning"}
    return [
        Remark(marks.get(one.outcome, "plain"), f"{one.title}: {one.words}.")
        for one in judgements(folder)
    ]
