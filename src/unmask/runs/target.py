"""Prepare the target of an objective: fit it to training images, or load the tokenizer that it names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource
from unmask.data.cpu_feed import CpuFeed
from unmask.data.loader import Wanted
from unmask.data.order import samples
from unmask.errors import DataError, SettingsError
from unmask.formats.dalle import read_dalle
from unmask.formats.model import ModelSpec
from unmask.patches import normalize, patchify
from unmask.recipes import Recipe
from unmask.runs.folder import RunFolder
from unmask.runs.job import Setting
from unmask.runs.tokenize import Tokenize
from unmask.spec import from_json
from unmask.targets import DalleCodes, TokenizerCodes
from unmask.targets.dalle import DalleTarget
from unmask.targets.tokenizer import CodeTarget
from unmask.traits import Fitted, Predicting, Targeted

_AT_ONCE = 64  # images
_MOST_IMAGES = 10_000  # read for fitting


def fit_target(run: Setting, recipe: Recipe, source: ImageSource, objective: nn.Module) -> None:
    """Fit the objective's target, if it needs that, on patches drawn from the run's seed; or load its tokenizer.

    The result is part of every checkpoint, so this is called only before the first step.

    Raises:
        DataError: if no image can be read, or the target cannot be fitted to the patches.
        RunError, DataError: if there is no tokenizer at the path.
    """
    target = objective.target if isinstance(objective, Targeted) else None
    if isinstance(target, CodeTarget | DalleTarget) and not target.complete:
        target.take(_tokenizer_of(run, recipe))
    if isinstance(target, Fitted) and not target.fitted:
        target.fit(_patches(run, recipe, source, target.patches_wanted))


def _tokenizer_of(run: Setting, recipe: Recipe) -> dict[str, Tensor]:
    """The weights of the tokenizer that the run's target names."""
    objective = recipe.objective
    assert isinstance(objective, Predicting)
    target = objective.target
    assert isinstance(target, TokenizerCodes | DalleCodes)
    values = run.statistics.values
    shaped, weights = codes_for(target, recipe.encoder.patch_size, run.channels, values)
    if (shaped := replace(shaped, path=target.path)) != target:
        raise SettingsError(
            f"the tokenizer at {target.path} is {shaped}, but the run's target was made for {target}; restore the "
            "original tokenizer there"
        )
    return weights


def _patches(
    run: Setting, recipe: Recipe, source: ImageSource, wanted: int
) -> Float[Tensor, "n p"]:
    """At least `wanted` complete patches of the first views of the run, as the encoder sees them."""
    size = recipe.image_size
    feed = CpuFeed(source, recipe.views, size, run.seed)
    statistics = run.statistics.tensors()
    patches: list[Tensor] = []
    count = 0
    for step in range(-(-_MOST_IMAGES // _AT_ONCE)):
        keys = samples(step, _AT_ONCE, len(source), run.seed)
        batch = feed.load(Wanted(keys, 0, size), [])
        cut = patchify(batch.images, recipe.encoder.patch_size).flatten(0, 1)  # [n p]
        cut = normalize(cut, statistics)
        patches.append(cut[~cut.isnan().any(1)])
        count += len(patches[-1])
        if count >= wanted:
            break
    if count == 0:
        raise DataError(
            "all patches have missing values, and this target is fitted to complete patches; choose "
            "objective.target:normalized-pixels, which uses the known pixels"
        )
    return torch.cat(patches)


def _tokenizer_for(
    target: TokenizerCodes, patch_size: int, channels: int, values: str
) -> tuple[TokenizerCodes, dict[str, Tensor]]:
    folder = RunFolder(target.path)
    spec = folder.read_spec(Tokenize.command)
    try:
        job = from_json(Tokenize, {k: v for k, v in spec["job"].items() if k != "kind"})
        statistics = from_json(ChannelStatistics, spec["statistics"])
    except (SettingsError, KeyError) as error:
        raise folder.unreadable(error) from None
    side, bands = job.recipe.patch_size, len(statistics.mean)
    what = f"the tokenizer at {target.path}"
    if (side, bands) != (patch_size, channels):
        raise SettingsError(
            f"{what} has patches of {side} pixels and {bands} channels, but the encoder has patches of "
            f"{patch_size} pixels and {channels} channels; train one with `unmask tokenizer DATA --out NEW --patch-size "
            f"{patch_size}`"
        )
    if statistics.values != values:
        raise SettingsError(
            f"{what} was trained on {statistics.values} pixels, but these images are {values}; train one on them "
            "with `unmask tokenizer DATA --out NEW`"
        )
    weights = folder.newest_whole()[0].read("model")
    where = str(folder.root.absolute())
    return replace(target, path=where, tokenizer=job.recipe.tokenizer), weights


def codes_for(
    target: TokenizerCodes | DalleCodes, patch_size: int, channels: int, values: str
) -> tuple[TokenizerCodes | DalleCodes, dict[str, Tensor]]:
    """The target with the shape of the model at its path, and the weights of that model.

    Raises:
        RunError, DataError: if that model is missing or damaged, or something else is at the path.
        SettingsError: if it does not fit the encoder or the images.
    """
    if isinstance(target, TokenizerCodes):
        return _tokenizer_for(target, patch_size, channels, values)
    if values != "uint8":
        raise SettingsError(
            f"DALL-E's tokenizer needs uint8 images, but these are {values}; train your own tokenizer with "
            "`unmask tokenizer`"
        )
    shape, weights = read_dalle(target.path)
    return replace(target, path=str(Path(target.path).absolute()), **shape._asdict()), weights


def with_tokenizer(recipe: Recipe, channels: int, values: str) -> Recipe:
    """The recipe; if its target names a tokenizer, the target takes the shape of that tokenizer."""
    objective = recipe.objective
    target = objective.target if isinstance(objective, Predicting) else None
    if not isinstance(target, TokenizerCodes | DalleCodes):
        return recipe
    shaped, _ = codes_for(target, recipe.encoder.patch_size, channels, values)
    return replace(recipe, objective=with_target(objective, shaped))


def with_target(objective: Any, target: Any) -> Any:
    """The spec of a `Predicting` objective with another target."""
    return replace(objective, target=target)


def brings_target(weights: ModelSpec, recipe: Recipe) -> bool:
    """Whether initial weights already contain the recipe's target, such as its tokenizer."""
    old, new = weights.objective, recipe.objective
    if not isinstance(old, Predicting) or not isinstance(new, Predicting):
        return False
    return old.target == new.target
