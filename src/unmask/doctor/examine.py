"""All checks of a run, or of images that a run would use."""

import math

import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import Batch, ImageSource
from unmask.doctor import images as pictures
from unmask.doctor import log, reference, weights
from unmask.doctor.finding import Finding, sorted_findings
from unmask.errors import UnmaskError
from unmask.masking import draw_masks
from unmask.objectives import DINO
from unmask.objectives.mae import MAE, Visible
from unmask.randomness import generator
from unmask.recipes import Recipe
from unmask.recipes.by_time import batch_for
from unmask.runs.course import end_of
from unmask.runs.folder import RunFolder
from unmask.runs.run import USUAL_SET_ASIDE, Run
from unmask.training.checkpoint import fill
from unmask.training.logbook import read_log
from unmask.traits import Hiding, Reconstructing

_GUESSED = 32  # images for guesses and gradients
_FEW_HIDDEN = 0.4  # MAE fig. 5: below it, linear probes lose most


def examine_images(
    source: ImageSource, recipe: Recipe, statistics: ChannelStatistics
) -> list[Finding]:
    """What may be wrong with images for a recipe; the worst first."""
    found = pictures.look_at(source, recipe.image_size, statistics)
    steps = recipe.epochs * len(source) / recipe.batch_size
    findings = [
        pictures.readable(found, USUAL_SET_ASIDE),
        *_of_images(found.images, recipe, statistics),
        *_amount(recipe, len(source), steps),
    ]
    return sorted_findings(findings)


def examine_run(run: Run, folder: RunFolder, source: ImageSource | None) -> list[Finding]:
    """What may be wrong with a run; the worst first. `source` is None if its images are gone."""
    recipe, lines = run.recipe, read_log(folder.log)
    findings: list[Finding] = []
    found = None
    if source is not None and isinstance(recipe, Recipe):
        looked_at = pictures.look_at(source, recipe.image_size, run.statistics)
        found = looked_at.images
        findings.append(pictures.readable(looked_at, run.max_set_aside))
        findings += _of_images(found, recipe, run.statistics)
        findings += _amount(recipe, run.images, end_of(run, lines))
    guesses = None
    if isinstance(recipe, Recipe):
        of_weights, guesses = _of_weights(run, folder, found, too_early=log.too_early(lines))
        findings += of_weights
    if not lines:
        return sorted_findings([*findings, Finding("note", "log", "no step is logged yet")])
    findings += log.of_log(run, lines)
    if isinstance(recipe, Recipe) and math.isfinite(lines[-1]["loss"]):
        findings += _of_loss(run, lines, guesses)
    return sorted_findings(findings)


def _of_loss(run: Run, lines: log.Lines, guesses: weights.Guesses | None) -> list[Finding]:
    """The loss beside that of a dead run, and beside reference runs."""
    if guesses is None:
        dead = log.learns(lines, log.level(lines), "at the end", _dead_by_theory(run.recipe))
    else:
        # on the same images, because the loss of few images differs from that of all
        related = weights.related(guesses)
        dead = log.learns(lines, guesses.loss, "on some images", guesses.dead, related=related)
    curve = reference.curve_of(run, lines)
    return [dead, *(reference.beside_references(curve, reference.references()) if curve else [])]


def _of_images(
    images: Shaped[Tensor, "b c h w"], recipe: Recipe, statistics: ChannelStatistics
) -> list[Finding]:
    """The checks of images alone, and of the masking on them."""
    findings = [
        pictures.constant(images),
        pictures.repeated(images),
        pictures.fits_statistics(images, statistics),
    ]
    objective = recipe.objective
    if not isinstance(objective, Hiding):
        return findings
    few = _few(images)
    masks = draw_masks(
        objective.masking, few, recipe.encoder_grid(), generator(few.device, "doctor", 0)
    )
    length = pictures.correlation_length(images)
    findings += pictures.structures(length, recipe.encoder.patch_size, masks, recipe.image_size)
    hidden = masks.removed.double().mean().item()
    if (
        isinstance(objective, MAE)
        and isinstance(objective.encoding, Visible)
        and hidden < _FEW_HIDDEN
    ):
        findings.append(
            Finding(
                "fault",
                "masking ratio",
                f"{hidden:.0%} of the patches are hidden; MAE hides 75 %",
                "so few hidden patches follow from their neighbours, and the encoder need not understand the picture "
                "(MAE, figure 5)",
                "--objective.masking.ratio 0.75",
                "likely",
            )
        )
    return findings


def _few(images: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "f c h w"]:
    """Some of the images, spread evenly, because neighbours are often of one class."""
    count = min(_GUESSED, len(images))
    return images[torch.linspace(0, len(images) - 1, count).long()]


def _amount(recipe: Recipe, images: int, steps: float) -> list[Finding]:
    """The number of images against batch and steps."""
    batch = recipe.batch_size
    seen = f"{images:,} images in batches of {batch:,}, {steps:,.0f} steps in all"
    if batch <= images:
        return [Finding("fine", "number of images", seen)]
    return [
        Finding(
            "warning", "number of images", seen, "each batch holds images several times, so steps are few",
            f"--batch-size {batch_for(recipe, images)}",
        )
    ]  # fmt: skip


def _dead_by_theory(recipe: object) -> float | None:
    """The loss of a dead run where it follows from the settings: ln K for DINO with K prototypes."""
    if isinstance(recipe, Recipe) and isinstance(recipe.objective, DINO):
        return math.log(recipe.objective.prototypes)
    return None


def _of_weights(
    run: Run, folder: RunFolder, images: Shaped[Tensor, "b c h w"] | None, *, too_early: bool
) -> tuple[list[Finding], weights.Guesses | None]:
    """The checks of the newest checkpoint, on images if they are there."""
    try:
        checkpoint, _ = folder.newest_whole()
    except UnmaskError as error:
        return [Finding("note", "weights", str(error))], None
    objective = run.build()
    fill(objective, checkpoint.read("model"), checkpoint.folder)
    objective.eval()
    findings = [weights.finite(objective), *weights.positions(objective)]
    if (
        images is None
        or findings[0].severity == "fault"
        or not isinstance(objective, Reconstructing)
    ):
        return findings, None
    few = _few(images)
    guesses = weights.guesses_of(objective, few, run.seed)
    if guesses is not None:
        findings.append(weights.differ(guesses, too_early=too_early))
    index = torch.arange(len(few))
    batch = Batch((few,), None, index, 0)
    loss = objective(batch, generator(few.device, "doctor", run.seed)).total
    findings.append(weights.gradient(objective, loss))
    return findings, guesses
