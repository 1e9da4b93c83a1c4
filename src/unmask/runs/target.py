"""Targets that are fitted to the training images before the first step."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.contracts import ImageSource
from unmask.data.cpu_feed import CpuFeed
from unmask.data.loader import Wanted
from unmask.data.order import samples
from unmask.errors import DataError, SettingsError
from unmask.objectives import AIM, MAE, AnyPretraining
from unmask.patches import normalize, patchify
from unmask.runs.codes import codes_for
from unmask.runs.run import Run
from unmask.targets import DalleCodes, TokenizerCodes
from unmask.targets.dalle import DalleTarget
from unmask.targets.tokenizer import CodeTarget
from unmask.traits import Fitted, Targeted

_AT_ONCE = 64
_LOOKED_THROUGH = 10_000


def fit_target(run: Run, source: ImageSource, objective: AnyPretraining) -> None:
    """Fit the objective's target, if it wants to be and is not, on patches that the run's seed draws.

    Or put a trained tokenizer in, if it names one. What it has then is in every checkpoint; so this is for a
    first step only.

    Raises:
        DataError: if no image can be read, or the patches allow no fit.
        RunError, DataError: if there is no tokenizer at the path.
    """
    target = objective.target if isinstance(objective, Targeted) else None
    if isinstance(target, CodeTarget | DalleTarget) and not target.complete:
        target.take(_tokenizer_of(run))
    if isinstance(target, Fitted) and not target.fitted:
        target.fit(_patches(run, source, objective, target.patches_wanted))


def _tokenizer_of(run: Run) -> dict[str, Tensor]:
    """The weights of the tokenizer that the run's target names."""
    objective = run.recipe.objective
    assert isinstance(objective, MAE | AIM)
    target = objective.target
    assert isinstance(target, TokenizerCodes | DalleCodes)
    values = run.statistics.values
    found, weights = codes_for(target, run.recipe.encoder.patch_size, run.channels, values)
    if (found := replace(found, path=target.path)) != target:
        raise SettingsError(
            f"what lies at {target.path} is {found}, and the run's target is made for {target}; give it that one, "
            "or leave the target's shape to `unmask pretrain`"
        )
    return weights


def _patches(
    run: Run, source: ImageSource, objective: AnyPretraining, wanted: int
) -> Float[Tensor, "n p"]:
    """At least so many whole patches as the encoder sees them, of the first views of the run."""
    size = run.recipe.image_size
    feed = CpuFeed(source, run.recipe.views, size, run.seed)
    statistics = run.statistics.tensors()
    found: list[Tensor] = []
    count = 0
    for step in range(-(-_LOOKED_THROUGH // _AT_ONCE)):
        keys = samples(step, _AT_ONCE, len(source), run.seed)
        batch = feed.load(Wanted(keys, 0, size), [])
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
