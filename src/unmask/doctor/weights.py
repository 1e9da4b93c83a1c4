"""Checks of weights: finite numbers, position tables, guesses for hidden patches, gradients."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from unmask.doctor.finding import Finding
from unmask.masking import draw_masks
from unmask.masks import PatchMask
from unmask.randomness import generator
from unmask.traits import Reconstructing

_EQUAL = 1e-6  # deviation over positions of a table that says nothing about them
_ALIKE = 0.02  # deviation of guesses over hidden places relative to that of the truth
_UNRELATED = (
    0.15  # correlation of guesses and truth; chance alone gives up to 0.08 on 32 small images
)


class Guesses(NamedTuple):
    """How a model guesses the hidden patches of some images."""

    loss: float
    """Its loss on them."""
    dead: float
    """The loss of the best guess that is the same for all patches. (P-1)/P for normalised patches of P values that are not
    constant, the variance of the images for plain pixels."""
    spread: float
    """Deviation of the guesses over the hidden places of an image, relative to that of the truth."""
    correlation: float
    """Correlation of guesses and truth over all hidden patches and values."""


@torch.no_grad()
def guesses_of(
    objective: Reconstructing, images: Shaped[Tensor, "b c h w"], seed: int
) -> Guesses | None:
    """Guess hidden patches of images; None if the target is not a vector of real numbers, such as codes."""
    mask = _mask(objective, images, seed)
    truth = objective.target(images, mask, objective.encoder.statistics)
    if not isinstance(truth, Tensor) or not truth.is_floating_point() or truth.ndim != 3:
        return None
    kept = mask.kept_index.shape[1]
    order = torch.cat([mask.kept_index, mask.removed_index], 1)
    all_guesses = objective.predict_all(images, mask)
    guess = all_guesses.gather(1, order[..., None].expand(-1, -1, all_guesses.shape[-1]))[:, kept:]
    if guess.shape != truth.shape:
        return None
    known = ~truth.isnan()
    truth = torch.where(known, truth, 0.0)
    middle = truth.sum((0, 1)) / known.sum((0, 1)).clamp(min=1)
    everywhere = middle.expand_as(truth)

    def loss(prediction: Tensor) -> float:
        return float(objective.target.loss(prediction.contiguous(), truth).mean())

    centred = guess - guess.mean((0, 1)), truth - middle
    norms = [float(each[known].norm()) for each in centred]
    product = float((centred[0] * centred[1])[known].sum())
    return Guesses(
        loss=loss(guess),
        dead=loss(everywhere),
        spread=_over_places(guess) / max(_over_places(truth), 1e-12),
        correlation=product / max(norms[0] * norms[1], 1e-12),
    )


def _over_places(values: Tensor) -> float:
    """Deviation over the hidden places of an image, averaged over images and values."""
    return float(values.double().var(1, correction=0).mean().sqrt())


def _mask(objective: Reconstructing, images: Tensor, seed: int) -> PatchMask:
    grid = objective.grid_of(images)
    return draw_masks(objective.masking, images, grid, generator(images.device, "doctor", seed))


def finite(module: nn.Module) -> Finding:
    """Whether all weights are finite."""
    bad = [
        name
        for name, value in module.state_dict().items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if not bad:
        return Finding("fine", "weights", "all weights are finite")
    return Finding(
        "fault", "weights", f"{len(bad)} tensors hold NaN or infinity, the first is {bad[0]}",
        "every output is NaN",
        "go back to an earlier checkpoint, with half of --schedule.base-lr",
    )  # fmt: skip


def positions(module: nn.Module) -> list[Finding]:
    """Whether position tables differ between positions."""
    findings: list[Finding] = []
    for name, table in module.state_dict().items():
        if not name.endswith("pos_embed") or table.ndim != 3 or table.shape[1] < 3:
            continue
        deviation = float(table[0, 1:].double().std(0).max())
        if deviation > _EQUAL:
            findings.append(Finding("fine", "positions", f"{name} differs between positions"))
        else:
            findings.append(
                Finding(
                    "fault",
                    "positions",
                    f"{name} is the same at all positions",
                    "the network cannot tell where a patch is, so it guesses the same for all hidden patches of an image",
                    "load weights with their position table, or start again; some conversions leave it out",
                )
            )
    return findings


def differ(guesses: Guesses, *, too_early: bool) -> Finding:
    """Whether the guesses at the hidden places of an image differ; `too_early` is whether few steps have been taken."""
    seen = (
        f"guesses vary over the hidden places of an image {guesses.spread:.1%} as much as the truth"
    )
    if guesses.spread > _ALIKE:
        return Finding("fine", "guesses", seen)
    if too_early:
        return Finding(
            "note", "guesses", seen, "a model guesses the same everywhere at first, and few steps have been taken",
            "train longer", "possible",
        )  # fmt: skip
    return Finding(
        "fault", "guesses", seen,
        "the decoder makes the same guess everywhere, so nothing of the picture reaches it, or not where it is",
        "see the findings on positions and learning rate",
        "likely",
    )  # fmt: skip


def gradient(module: nn.Module, loss: Tensor) -> Finding:
    """Whether a gradient arrives."""
    module.zero_grad()
    loss.backward()
    squares = [
        float(p.grad.double().square().sum()) for p in module.parameters() if p.grad is not None
    ]
    module.zero_grad()
    norm = math.sqrt(sum(squares))
    seen = f"its norm on a few images is {norm:.3g}"
    if math.isfinite(norm) and norm > 0:
        return Finding("fine", "gradient", seen)
    return Finding(
        "fault", "gradient", seen,
        "the weights cannot learn from it",
        "check the images (constant? NaN?) and the precision (--precision float32)",
    )  # fmt: skip


def related(guesses: Guesses) -> bool:
    """Whether guesses have something to do with the truth; guesses that are nearly the same everywhere correlate with it
    by chance alone."""
    return guesses.spread > _ALIKE and guesses.correlation > _UNRELATED
