"""Is the loss usual? The curve of a run beside those of reference runs of its kind, on other images.

`curves.json` holds our own runs, each with its origin; `scripts/reference_curves.py` writes it from their folders. Only
losses that mean the same are compared: those of masked autoencoders on normalised pixels, which hide about the same share
of the patches, with encoders of about the same width, in runs of about the same length.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from unmask.doctor.finding import Finding
from unmask.files import read_json
from unmask.masking import count_visible
from unmask.objectives import MAE
from unmask.recipes import Recipe
from unmask.runs.course import end_of
from unmask.runs.run import Run
from unmask.targets import NormalizedPixels

FILE = Path(__file__).with_name("curves.json")
"""The reference curves."""

POINTS = 20
"""Values of a curve, each the mean loss of a twentieth of the steps."""

_FIRST = 5  # a quarter of the run; before it the loss depends on warm-up and weights more than on what is learnt
_FEWEST = 4  # reference curves, so that there is a range
_HIDDEN = 0.1  # difference of the hidden shares
_WIDER, _LONGER = 2.0, 4.0  # ratio of the widths of the encoders, and of the steps
_FAR = 1.0  # distance above the range, in widths of the range; a loss below it is no fault

Lines = Sequence[dict[str, float]]


class Curve(NamedTuple):
    """The loss of a run, as far as it has come, with what decides with which others it may be compared."""

    recipe: str
    """Name of the recipe."""
    steps: int
    """Steps of the whole run."""
    batch_size: int
    width: int
    """Width of the encoder."""
    depth: int
    patch_size: int
    side: int
    """Shorter side of a crop in pixels."""
    hidden: float
    """Share of the patches that are hidden."""
    loss: list[float]
    """Mean loss of each twentieth of the steps."""
    data: str = ""
    """The images, in words; empty but for references."""
    command: str = ""
    """How to repeat the run."""
    machine: str = ""
    seed: int = 0


@cache
def references() -> tuple[Curve, ...]:
    """The reference curves."""
    return tuple(Curve(**one) for one in read_json(FILE)["curves"])


def curve_of(run: Run, lines: Lines) -> Curve | None:
    """The curve of a run; None if its loss means something else, or it has fewer than twenty steps."""
    recipe = run.recipe
    if not isinstance(recipe, Recipe) or not isinstance(recipe.objective, MAE):
        return None
    steps = end_of(run, lines)
    if not isinstance(recipe.objective.target, NormalizedPixels) or steps < POINTS:
        return None
    grid = recipe.encoder_grid()
    visible = count_visible(recipe.objective.masking, grid)
    return Curve(
        recipe=run.recipe_name,
        steps=steps,
        batch_size=recipe.batch_size,
        width=recipe.encoder.embed_dim,
        depth=recipe.encoder.depth,
        patch_size=recipe.encoder.patch_size,
        side=min(recipe.image_size),
        hidden=round(1 - visible / (grid.height * grid.width), 3),
        loss=_twentieths(lines, steps),
        seed=run.seed,
    )


def _twentieths(lines: Lines, steps: int) -> list[float]:
    """The mean loss of each twentieth of the steps that is over."""
    means: list[float] = []
    for part in range(1, POINTS + 1):
        first, last = (part - 1) * steps // POINTS, part * steps // POINTS
        losses = [line["loss"] for line in lines if first < line["step"] <= last]
        if len(losses) < last - first:
            break
        means.append(round(mean(losses), 4))
    return means


def comparable(one: Curve, other: Curve) -> bool:
    """Whether the losses of two runs mean the same."""
    return (
        abs(one.hidden - other.hidden) <= _HIDDEN
        and 1 / _WIDER <= one.width / other.width <= _WIDER
        and 1 / _LONGER <= one.steps / other.steps <= _LONGER
    )


def beside_references(own: Curve, others: Sequence[Curve]) -> list[Finding]:
    """Where the curve of a run lies among those of other runs; nothing if too few are comparable, or it is too early."""
    place = len(own.loss)
    values = [other.loss[place - 1] for other in others if comparable(own, other)]
    if place < _FIRST or len(values) < _FEWEST:
        return []
    now, low, high = own.loss[-1], min(values), max(values)
    seen = (
        f"{now:.3g} after {place / POINTS:.0%} of the run; {len(values)} reference runs of this kind "
        f"have {low:.3g} to {high:.3g} there"
    )
    if low <= now <= high:
        return [Finding("fine", "loss curve", seen)]
    if now > high + _FAR * (high - low):
        return [
            Finding(
                "warning", "loss curve", seen, "hidden patches are guessed far worse than in all of them",
                "see the other findings; if they are fine, look at images and transforms (noise?)", "possible",
            )
        ]  # fmt: skip
    side = "above" if now > high else "below"
    return [
        Finding(
            "note", "loss curve", f"{seen}: it lies {side} them all",
            "images decide too: fine textures are harder to guess, and smooth or similar images easier",
            "nothing, if the other findings are fine", "possible",
        )
    ]  # fmt: skip
