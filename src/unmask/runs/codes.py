"""What a tokenizer's codes keep of images that it has not seen, beside k-means; and a tokenizer by its path."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unmask.contracts import ImageSource, Predicting, Size
from unmask.data.views import CenterCrop
from unmask.errors import DataError, SettingsError
from unmask.formats.dalle import read_dalle
from unmask.formats.model import ModelSpec
from unmask.patches import denormalize, filled, normalize, patch_grid, patchify, size_of, unpatchify
from unmask.recipes import Recipe, Tokenizing
from unmask.runs.folder import RunFolder
from unmask.runs.in_order import Unreadable, in_order
from unmask.runs.labelled import Part
from unmask.runs.tokenizer import TokenizerRun
from unmask.runs.weights import newest_whole
from unmask.spec import to_json
from unmask.targets import DalleCodes, TokenizerCodes
from unmask.targets.pixels import normalized, var_mean
from unmask.targets.tokenizer import LEAST_CODES, PatchTokenizer
from unmask.targets.tokens import nearest, perplexity_of, typical_patches

_PATCHES = 100_000
_SHOWN = 6
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What codes keep."""

    psnr: float
    """Decibels, of 0 to 1 as pictures show it, over the known pixels of all images."""

    perplexity: float
    """How many codes would be in use if all in use were used alike."""

    used: int
    """How many codes occur."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A tokenizer on images that it has not seen."""

    codes: int
    """How many it has."""

    images: int
    """How many it was judged on."""

    tokenizer: Coded
    """What its codes keep."""

    kmeans: Coded
    """What the same number of codes keeps that stand for the nearest of so many typical patches."""

    kmeans_with_levels: Coded
    """Likewise of normalised patches (the target kmeans-tokens), whose mean and deviation are given beside the code."""


class Shown(NamedTuple):
    """An image, and what the tokenizer's and k-means' codes keep of it, each [c h w], 0 to 1 as pictures show it."""

    pictures: list[Tensor]
    name: str


@torch.inference_mode()
def judge(
    tokenizer: PatchTokenizer, run: TokenizerRun, train: ImageSource, test: ImageSource
) -> tuple[Judged, list[Shown], Unreadable]:
    """Put images that it has not seen through a tokenizer, and through k-means of as many training patches."""
    tokenizer.to(run.hardware.device).eval()
    codes, unreadable = tokenizer.codes, Unreadable()
    fitting = _some_patches(run, train)
    centers = typical_patches(fitting, codes)
    shapes = typical_patches(normalized(fitting, fitting), codes)
    ours, plain, levelled = (_Tally(run, codes) for _ in range(3))
    shown: list[Shown] = []
    wanted = set(np.linspace(0, len(test) - 1, _SHOWN).astype(int).tolist())
    for images, positions in _images(run, test, unreadable):
        patches = _patches(run, images)
        known, grid = filled(patches), patch_grid(size_of(images), run.recipe.patch_size)
        found = tokenizer.codes_of(known.to(run.hardware.device))
        rebuilt = tokenizer.decode(tokenizer.values_of(found), grid).cpu()
        ours.add(rebuilt, patches, found.cpu())
        found = nearest(known, centers)
        plain.add(centers[found], patches, found)
        variance, mean = var_mean(patches, images)
        found = nearest(filled(normalized(patches, images)), shapes)
        levelled.add(shapes[found] * variance.sqrt() + mean, patches, found)
        for row, position in enumerate(positions):
            if position not in wanted:
                continue
            typical = centers[nearest(known[row], centers)]
            drawn = [_picture(run, each, grid) for each in (patches[row], rebuilt[row], typical)]
            shown.append(Shown(drawn, test.name(position)))
    result = Judged(
        codes=codes,
        images=ours.images,
        tokenizer=ours.coded(),
        kmeans=plain.coded(),
        kmeans_with_levels=levelled.coded(),
    )
    return result, shown, unreadable


class _Tally:
    """Errors and codes of some images, added up."""

    def __init__(self, run: TokenizerRun, codes: int) -> None:
        self.run, self.codes, self.images = run, codes, 0
        self.squares = self.known = 0.0
        self.counts = torch.zeros(codes, dtype=torch.long)

    def add(
        self, rebuilt: Float[Tensor, "b n p"], patches: Float[Tensor, "b n p"], found: Tensor
    ) -> None:
        """Count some images; where a value is missing, nothing is counted."""
        off = _levels(self.run, rebuilt) - _levels(self.run, patches)
        self.squares += float(off.double().square().nansum())
        self.known += float((~off.isnan()).sum())
        self.counts += torch.bincount(found.flatten(), minlength=self.codes)
        self.images += len(patches)

    def coded(self) -> Coded:
        """What was counted."""
        return Coded(
            psnr=round(-10 * math.log10(max(self.squares / self.known, 1e-12)), 2),
            perplexity=round(float(perplexity_of(self.counts)), 1),
            used=int((self.counts > 0).sum()),
        )


def _levels(run: TokenizerRun, patches: Float[Tensor, "*b p"]) -> Float[Tensor, "*b p"]:
    """Normalised patches as pictures show them: 0 to 1, what is outside cut off."""
    statistics = run.statistics
    low, high = (torch.tensor(ends) for ends in (statistics.low, statistics.high))
    repeats = patches.shape[-1] // len(low)
    values = denormalize(patches, statistics.tensors())
    return ((values - low.repeat(repeats)) / (high - low).repeat(repeats)).clamp(0, 1)


def _picture(run: TokenizerRun, patches: Float[Tensor, "n p"], grid: Size) -> Tensor:
    return unpatchify(_levels(run, patches)[None], run.recipe.patch_size, grid)[0]


def _patches(run: TokenizerRun, images: Tensor) -> Float[Tensor, "b n p"]:
    return normalize(patchify(images, run.recipe.patch_size), run.statistics.tensors())


def _images(
    run: TokenizerRun, source: ImageSource, unreadable: Unreadable
) -> Iterator[tuple[Tensor, list[int]]]:
    """(images, positions in the source), cut to the tokenizer's size."""
    for batch in in_order(
        source,
        CenterCrop(),
        run.recipe.image_size,
        run.statistics,
        unreadable,
        batch_size=_AT_ONCE,
        workers=run.hardware.workers,
    ):
        yield batch.images, batch.positions


def _some_patches(run: TokenizerRun, train: ImageSource) -> Float[Tensor, "n p"]:
    """Whole patches of evenly spaced training images, about as many as `kmeans-tokens` is fitted to."""
    grid = patch_grid(run.recipe.image_size, run.recipe.patch_size)
    count = min(len(train), -(-_PATCHES // (grid.height * grid.width)))
    rows = np.linspace(0, len(train) - 1, count).astype(np.int64)
    found = [_patches(run, images) for images, _ in _images(run, Part(train, rows), Unreadable())]
    patches = torch.cat(found).flatten(0, 1)
    return patches[~patches.isnan().any(1)]


def write_judged(folder: RunFolder, result: Judged) -> None:
    """Keep what was found beside the tokenizer."""
    folder.results.write_text(json.dumps(to_json(result), indent=1) + "\n")


def check_patches(recipe: Tokenizing, train: ImageSource) -> None:
    """Refuse fewer patches than codes.

    Raises:
        DataError: saying how many there are, and what would do.
    """
    grid = patch_grid(recipe.image_size, recipe.patch_size)
    patches = len(train) * grid.height * grid.width
    if patches < recipe.tokenizer.codes:
        fits = 2 ** (patches.bit_length() - 1)
        fewer = f"take --tokenizer.codes {fits}, or " if fits >= LEAST_CODES else ""
        raise DataError(
            f"{len(train)} images of {grid.height} x {grid.width} patches are {patches} patches, fewer than the "
            f"{recipe.tokenizer.codes} codes to be learnt; {fewer}more images"
        )


def tokenizer_for(
    target: TokenizerCodes, patch_size: int, channels: int, values: str
) -> tuple[TokenizerCodes, dict[str, Tensor]]:
    """The target with the shape of the tokenizer at its path, and that tokenizer's weights.

    Raises:
        RunError: if there is none at that path.
        SettingsError: if it is of other patches, channels or values than the encoder.
    """
    folder = RunFolder(target.path)
    run = folder.read_tokenizer()
    its, what = (run.recipe.patch_size, run.channels), f"the tokenizer at {target.path}"
    if its != (patch_size, channels):
        raise SettingsError(
            f"{what} is of patches of {its[0]} pixels and {its[1]} channels, and the encoder has patches of "
            f"{patch_size} and {channels} channels; train one with `unmask tokenizer DATA --out NEW --patch-size "
            f"{patch_size}`"
        )
    if run.statistics.values != values:
        raise SettingsError(
            f"{what} was trained on {run.statistics.values} pixels, and these images hold {values}; train one on them "
            "with `unmask tokenizer DATA --out NEW`"
        )
    weights = newest_whole(folder)[0].read("model")
    where = str(folder.root.absolute())
    return replace(target, path=where, tokenizer=run.recipe.tokenizer), weights


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
    if not isinstance(objective, Predicting):
        return recipe
    target = objective.target
    if not isinstance(target, TokenizerCodes | DalleCodes):
        return recipe
    found, _ = codes_for(target, recipe.encoder.patch_size, channels, values)
    return replace(recipe, objective=replace(objective, target=found))


def brings_target(weights: ModelSpec, recipe: Recipe) -> bool:
    """Whether weights to start from hold the recipe's target, a tokenizer if it is one."""
    old, new = weights.objective, recipe.objective
    if not isinstance(old, Predicting) or not isinstance(new, Predicting):
        return False
    return old.target == new.target
