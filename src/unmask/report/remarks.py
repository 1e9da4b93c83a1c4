"""What the figures of a run say, in sentences: the first lines of its report."""

import math
from typing import Literal, NamedTuple

from unmask.data import Held
from unmask.errors import typed
from unmask.report.curves import Curves
from unmask.report.scores import judgements, results, set_aside
from unmask.runs.collapse import collapse
from unmask.runs.folder import RunFolder
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
        _score(folder),
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


def _score(folder: RunFolder) -> Remark | None:
    table = results(folder, "")
    if table is None:
        return None
    return Remark(
        "plain", f"Score: {', '.join(f'{words} {value}' for words, value in table.rows)}."
    )


def _evaluations(folder: RunFolder) -> list[Remark]:
    marks: dict[str, Mark] = {"better": "good", "worse": "warning"}
    return [
        Remark(marks.get(one.outcome, "plain"), f"{one.title}: {one.words}.")
        for one in judgements(folder)
    ]
