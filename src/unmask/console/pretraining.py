"""What is printed of a pretraining run: its plan, checks of the embedding, and what to type when it is done."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from unmask.annotations import has_classes
from unmask.console.output import console
from unmask.console.plan import say_plan, visible_words
from unmask.console.typed import as_typed, band_words, data_words
from unmask.contracts import ImageSource
from unmask.data import GroundMap, Held
from unmask.errors import number_of, typed
from unmask.recipes import Recipe
from unmask.runs.collapse import collapse, in_words
from unmask.runs.folder import RunFolder
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import Plan
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run
from unmask.runs.training import Progress
from unmask.training.schedules import epochs_in_words
from unmask.training.step_cost import Cost
from unmask.traits import Masked

_CHECK_SECONDS = 30.0  # between printed checks of the embedding; all are in the log
_LONG = 3600.0
"""Seconds of a run from which on a shorter way is named."""


def say_pretraining(run: Run, plan: Plan, cost: Cost) -> None:
    """Print the plan of a run, and a shorter way if it takes long."""
    recipe = run.recipe
    assert isinstance(recipe, Recipe)
    encoder = recipe.encoder
    *smaller, _ = sizes = recipe.every_size()
    rising = (
        f"sizes     {', '.join(map(str, sizes))} pixels, {epochs_in_words(recipe.epochs / len(sizes))} each\n"
        if smaller
        else ""
    )
    rest = "in the decoder" if isinstance(recipe.objective, Masked) else "used only in training"
    say_plan(
        run,
        f"model     {number_of(encoder.depth, 'block')} of {encoder.embed_dim}, patches of {encoder.patch_size}: "
        f"{plan.encoder_parameters / 1e6:.2f} M parameters, and {plan.decoder_parameters / 1e6:.2f} M "
        f"{rest}\n"
        f"{visible_words(recipe, plan)}",
        cost,
        plan.step_seconds,
        after_steps=rising,
        at_most=f"at most; measured at {recipe.image_size} pixels: " if smaller else "",
    )
    if (
        run.minutes is None
        and not isinstance(run.data, Held)
        and plan.step_seconds * run.steps > _LONG
    ):
        words = typed("pretrain", *data_words(run.data), *band_words(run.data), "--minutes", "30")
        console.print(f"          a shorter way, with a recipe made for the time: {words}")


def say_done(run: Run, folder: RunFolder, images: Images, _: Outcome | None) -> None:
    """Print where the run is, and the commands that show and measure it."""
    console.print(f"done: {folder.root}")
    if isinstance(run.data, Held):
        console.print(f"look at it:  unmask.load({str(folder.root)!r}).reconstruct(image).show()")
        return
    if isinstance(run.job, Pretrain) and isinstance(run.job.recipe.objective, Masked):
        words = typed("reconstruct", folder.root, as_typed(run.data), "--out", "sheet.png")
        console.print(f"look at it:  {words}")
    if isinstance(run.data, GroundMap):
        words = typed(
            "embed", folder.root, *data_words(run.data), *band_words(run.data), "--out", "places"
        )
        console.print(f"find places: {words}")
    if _can_be_evaluated(images.train):
        words = typed("evaluate", folder.root, *data_words(run.data), "--protocol", "knn")
        console.print(f"measure it:  {words}")


def _can_be_evaluated(source: ImageSource) -> bool:
    """Whether `unmask evaluate` can train and test on these images: several classes, some with more than one image."""
    if not has_classes(source.annotations):
        return False
    labels = source.labels()
    if labels.ndim > 1:
        return bool((labels > 0).any())
    counts = np.bincount(labels[labels >= 0])
    return bool(np.count_nonzero(counts) > 1 and counts.max() > 1)


def watch_embedding(reports: Iterable[Progress]) -> Iterator[Progress]:
    """Pass reports on; print checks of the embedding, and warn once if it has collapsed."""
    warned, printed = False, time.perf_counter()
    for report in reports:
        for line in report.lines:
            words, now = in_words(line), time.perf_counter()
            is_last = line["step"] == report.steps
            if words is not None and (is_last or now - printed > _CHECK_SECONDS):
                console.print(f"step {line['step']:,}: {words}")
                printed = now
            if not warned and (reason := collapse(line, report.steps)) is not None:
                warned = True
                console.warn(
                    f"collapsed: {reason}; the encoder hardly distinguishes images. Training continues, because an early "
                    "collapse may recover. If the next checks are no better, stop and start again with half of "
                    "--schedule.base-lr"
                )
        yield report


def longer(run: Run, root: Path, epochs: str) -> str:
    """How to train on from the weights of a run, with its settings."""
    if isinstance(run.data, Held):
        return ""
    same = ["--like", str(root), "--init", str(root), "--epochs", epochs]
    return f"start from its weights: {typed('pretrain', *data_words(run.data), *band_words(run.data), *same)}"
