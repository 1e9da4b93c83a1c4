"""What an objective predicts: targets fitted to training images, and tokenizers found by their path."""

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

_AT_ONCE = 64
_LOOKED_THROUGH = 10_000


def fit_target(run: Setting, recipe: Recipe, source: ImageSource, objective: nn.Module) -> None:
    """Fit the objective's target, if it wants to be and is not, on patches that the run's seed draws.

    Or put a trained tokenizer in, if it names one. What it has then is in every checkpoint; so this is for a
    first step only.

    Raises:
        DataError: if no image can be read, or the patches allow no fit.
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
    there, weights = codes_for(target, recipe.encoder.patch_size, run.channels, values)
    if (there := replace(there, path=target.path)) != target:
        raise SettingsError(
            f"what lies at {target.path} is {there}, and the run's target is made for {target}; give it that one, "
            "or leave the target's shape to `unmask pretrain`"
        )
    return weights


def _patches(
    run: Setting, recipe: Recipe, source: ImageSource, wanted: int
) -> Float[Tensor, "n p"]:
    """At least so many whole patches as the encoder sees them, of the first views of the run."""
    size = recipe.image_size
    feed = CpuFeed(source, recipe.views, size, run.seed)
    statistics = run.statistics.tensors()
    found: list[Tensor] = []
    count = 0
    for step in range(-(-_LOOKED_THROUGH // _AT_ONCE)):
        keys = samples(step, _AT_ONCE, len(source), run.seed)
        batch = feed.load(Wanted(keys, 0, size), [])
        cut = patchify(batch.images, recipe.encoder.patch_size).flatten(0, 1)
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


def tokenizer_for(
    target: TokenizerCodes, patch_size: int, channels: int, values: str
) -> tuple[TokenizerCodes, dict[str, Tensor]]:
    """The target with the shape of the tokenizer at its path, and that tokenizer's weights.

    Raises:
        RunError: if there is none at that path.
        SettingsError: if it is of other patches, channels or values than the encoder.
    """
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
            f"{what} is of patches of {side} pixels and {bands} channels, and the encoder has patches of "
            f"{patch_size} and {channels} channels; train one with `unmask tokenizer DATA --out NEW --patch-size "
            f"{patch_size}`"
        )
    if statistics.values != values:
        raise SettingsError(
            f"{what} was trained on {statistics.values} pixels, and these images hold {values}; train one on them "
            "with `unmask tokenizer DATA --out NEW`"
        )
    weights = folder.newest_whole()[0].read("model")
    where = str(folder.root.absolute())
    return replace(target, path=where, tokenizer=job.recipe.tokenizer), weights


def dalle_for(target: DalleCodes, values: str) -> tuple[DalleCodes, dict[str, Tensor]]:
    """The target with the shape of the encoder in its file, and that encoder's weights.

    Raises:
        DataError: if the file is not there, or not that encoder.
        SettingsError: if the images are not of bytes.
    """
    if values != "uint8":
        raise SettingsError(
            f"DALL-E's tokenizer knows pixels of bytes, and these images hold {values}; train one of your own with "
            "`unmask tokenizer`"
        )
    shape, weights = read_dalle(target.path)
    return replace(target, path=str(Path(target.path).absolute()), **shape._asdict()), weights


def codes_for(
    target: TokenizerCodes | DalleCodes, patch_size: int, channels: int, values: str
) -> tuple[TokenizerCodes | DalleCodes, dict[str, Tensor]]:
    """The target as what lies at its path is, and the weights that give the codes; see the two above."""
    if isinstance(target, DalleCodes):
        return dalle_for(target, values)
    return tokenizer_for(target, patch_size, channels, values)


def with_tokenizer(recipe: Recipe, channels: int, values: str) -> Recipe:
    """The recipe, whose target takes the shape of the tokenizer that it names, if it names one."""
    objective = recipe.objective
    target = objective.target if isinstance(objective, Predicting) else None
    if not isinstance(target, TokenizerCodes | DalleCodes):
        return recipe
    shaped, _ = codes_for(target, recipe.encoder.patch_size, channels, values)
    return replace(recipe, objective=with_target(objective, shaped))


def with_target(objective: Any, target: Any) -> Any:
    """The objective's spec, a `Predicting` one, with another target."""
    return replace(objective, target=target)


def brings_target(weights: ModelSpec, recipe: Recipe) -> bool:
    """Whether weights to start from hold the recipe's target, a tokenizer if it is one."""
    old, new = weights.objective, recipe.objective
    if not isinstance(old, Predicting) or not isinstance(new, Predicting):
        return False
    return old.target == new.target
