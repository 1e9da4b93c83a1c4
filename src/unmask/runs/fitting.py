"""Targets that are fitted to the training images before the first step."""

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.contracts import Fitted, ImageSource
from unmask.data.loader import Viewed, Wanted
from unmask.data.order import samples
from unmask.errors import DataError, UnmaskError
from unmask.objectives.mae import MaskedAutoencoder
from unmask.patches import normalize, patchify
from unmask.runs.run import Run

_AT_ONCE = 64
_LOOKED_THROUGH = 10_000


def fit_target(run: Run, source: ImageSource, objective: MaskedAutoencoder) -> None:
    """Fit the objective's target, if it wants to be and is not, on patches that the run's seed draws.

    What it learns lies in its buffers, which every checkpoint holds; so this is for a first step only.

    Raises:
        DataError: if no image can be read, or the patches allow no fit.
    """
    target = objective.target
    if isinstance(target, Fitted) and not target.fitted:
        target.fit(_patches(run, source, objective, target.patches_wanted))


def _patches(
    run: Run, source: ImageSource, objective: MaskedAutoencoder, wanted: int
) -> Float[Tensor, "n p"]:
    """At least so many whole patches as the encoder sees them, of the first views of the run."""
    viewed = Viewed(source, run.recipe.views, run.recipe.image_size, run.seed)
    statistics = run.statistics.tensors()
    found: list[Tensor] = []
    count = 0
    for step in range(-(-_LOOKED_THROUGH // _AT_ONCE)):
        batch, _ = viewed.__getitems__(
            Wanted(samples(step, _AT_ONCE, len(source), run.seed), epoch=0)
        )
        if isinstance(batch, UnmaskError):
            raise batch
        cut = patchify(batch.images, objective.encoder.patch_size).flatten(0, 1)
        cut = normalize(cut, statistics)
        found.append(cut[~cut.isnan().any(1)])
        count += len(found[-1])
        if count >= wanted:
            break
    if count == 0:
        raise DataError(
            "no patch without missing values was found, and the target is fitted to whole ones; choose "
            "objective.target:normalized-pixels, which takes what is known"
        )
    return torch.cat(found)
