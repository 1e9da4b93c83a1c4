"""Training a tokenizer: learn discrete codes of image patches and compare them with k-means on held-out images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.contracts import ImageSource, Size
from unmask.data import AnySource
from unmask.data.annotated import pictures_alone
from unmask.data.in_order import WHOLE_IMAGE, Ordered, Unreadable, in_order
from unmask.data.labelled import Subset, read_as_train
from unmask.errors import DataError
from unmask.formats.model import Weights
from unmask.measures import Baseline, Measure
from unmask.patches import denormalize, filled, normalize, patch_grid, patchify, size_of, unpatchify
from unmask.randomness import derive, seeded
from unmask.recipes import Tokenizing
from unmask.runs.job import Change, Images, Outcome, Picture, Setting
from unmask.spec import to_json
from unmask.targets.pixels import normalized, var_mean
from unmask.targets.tokenizer import LEAST_CODES, PatchTokenizer
from unmask.targets.tokens import nearest, perplexity_of, typical_patches
from unmask.training.distributed import here

_HELD_OUT_SHARE = 0.1
_HELD_OUT_MOST = 1000  # images; more would hardly change the result
_PATCHES = 100_000  # for k-means
_SHOWN = 6  # images in the picture
_AT_ONCE = 64  # images


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """Train a tokenizer."""

    command: ClassVar[str] = "tokenizer"
    """The command that creates such runs."""

    init: ClassVar[str | None] = None
    """None: its weights are always random, from the seed."""

    recipe: Tokenizing
    """Settings that change the result."""

    @property
    def score_types(self) -> "tuple[type[Judged]]":
        """The class of its score."""
        return (Judged,)

    def knows(self, images: Images) -> bool:
        """True: annotations do not matter here."""
        return True

    @staticmethod
    def open(data: AnySource, seed: int) -> Images:
        """The training images, and at most 1,000 others: the data's test images, or a tenth drawn from the seed.

        Raises:
            DataError: if there is only one image.
        """
        train = pictures_alone(data)
        random = np.random.default_rng(derive("held out", seed))
        if "test" in data.splits():
            test = read_as_train(pictures_alone(data, "test"), train)
            rows = np.sort(random.permutation(len(test))[:_HELD_OUT_MOST])
            return Images(train, Subset(test, rows), split="the data's own test images")
        if len(train) < 2:
            raise DataError(
                f"{train.where} holds one image, but a tokenizer needs other images for its evaluation; "
                "add images"
            )
        order = random.permutation(len(train))
        count = min(_HELD_OUT_MOST, max(1, round(_HELD_OUT_SHARE * len(train))))
        held, learning = np.sort(order[:count]), np.sort(order[count:])
        words = f"held out, drawn from seed {seed}"
        return Images(Subset(train, learning), Subset(train, held), split=words)

    def model(self, run: Setting) -> None:
        """None: a tokenizer has no encoder."""
        return

    def build(self, run: Setting, weights: Weights | None = None) -> PatchTokenizer:
        """The tokenizer with random weights from the seed."""
        with seeded("weights", run.seed):
            return self.recipe.tokenizer.build(
                self.recipe.patch_size, run.channels, run.statistics.tensors()
            )

    def fit(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Nothing to fit."""

    def change(self, run: Setting) -> Change | None:
        """None: batches stay unchanged."""
        return None

    def watch(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """No check: the score at the end measures the codes."""
        return

    def score(self, run: Setting, module: nn.Module, images: Images) -> Outcome | None:
        """Evaluate the codes on held-out images, compared with k-means; only in the first process."""
        if not here().first:
            return None
        assert images.test is not None
        assert isinstance(module, PatchTokenizer)
        result, pictures, unreadable = judge(module, run, self.recipe, images.train, images.test)
        return Outcome(to_json(result), result, unreadable, tuple(pictures))


@dataclass(frozen=True, kw_only=True)
class Coded:
    """How well codes represent images."""

    psnr: float
    """Peak signal-to-noise ratio in dB, over the known pixels of all images, scaled to 0 to 1."""

    perplexity: float
    """Effective number of codes: exp of the entropy of their frequencies."""

    used: int
    """Number of codes that occur."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The evaluation of a tokenizer on held-out images."""

    codes: int
    """Number of codes."""

    images: int
    """Number of held-out images."""

    tokenizer: Coded
    """Its own codes."""

    kmeans: Coded
    """The same number of codes, each for the nearest of as many typical patches."""

    kmeans_with_levels: Coded
    """The same for normalised patches (the target kmeans-tokens); their mean and deviation are known besides the code."""

    def measures(self) -> tuple[Measure, ...]:
        """How well codes represent images, beside k-means."""
        ours, other = self.tokenizer, self.kmeans
        return (
            Measure("PSNR", ours.psnr, "dB", baseline=Baseline("k-means", other.psnr)),
            Measure(
                "perplexity",
                ours.perplexity,
                "codes",
                baseline=Baseline("k-means", other.perplexity),
            ),
            Measure("codes", self.codes, "count", None),
            Measure("codes in use", ours.used, "count", None),
            Measure("held-out images", self.images, "count", None),
        )


class _Patches(NamedTuple):
    """Turns images into patches for a tokenizer, and patches into pictures."""

    run: Setting
    recipe: Tokenizing

    def images(self, source: ImageSource, unreadable: Unreadable) -> Iterator[Ordered]:
        """Images cropped to the tokenizer's image size, in batches."""
        return in_order(
            source,
            WHOLE_IMAGE,
            self.recipe.image_size,
            self.run.statistics,
            unreadable,
            batch_size=_AT_ONCE,
            workers=self.run.hardware.workers,
        )

    def of(self, images: Tensor) -> Float[Tensor, "b n p"]:
        """Normalised patches of images."""
        return normalize(patchify(images, self.recipe.patch_size), self.run.statistics.tensors())

    def of_some(self, train: ImageSource) -> Float[Tensor, "n p"]:
        """Complete patches of evenly spaced training images, about as many as `kmeans-tokens` is fitted to."""
        grid = patch_grid(self.recipe.image_size, self.recipe.patch_size)
        count = min(len(train), -(-_PATCHES // (grid.height * grid.width)))
        rows = np.linspace(0, len(train) - 1, count).astype(np.int64)
        batches = self.images(Subset(train, rows), [])
        patches = torch.cat([self.of(batch.images) for batch in batches]).flatten(0, 1)
        return patches[~patches.isnan().any(1)]

    def levels(self, patches: Float[Tensor, "*b p"]) -> Float[Tensor, "*b p"]:
        """Normalised patches as values for a picture, clipped to 0 to 1."""
        statistics = self.run.statistics
        low, high = (torch.tensor(ends) for ends in (statistics.low, statistics.high))
        repeats = patches.shape[-1] // len(low)
        values = denormalize(patches, statistics.tensors())
        return ((values - low.repeat(repeats)) / (high - low).repeat(repeats)).clamp(0, 1)

    def picture(self, patches: Float[Tensor, "n p"], grid: Size) -> Float[Tensor, "c h w"]:
        """Normalised patches of an image as a picture."""
        return unpatchify(self.levels(patches)[None], self.recipe.patch_size, grid)[0]


@torch.inference_mode()
def judge(
    tokenizer: PatchTokenizer,
    run: Setting,
    recipe: Tokenizing,
    train: ImageSource,
    test: ImageSource,
) -> tuple[Judged, list[Picture], Unreadable]:
    """Rebuild held-out images from a tokenizer's codes, and from the nearest of as many typical training patches.

    Each picture shows an image, its version by the tokenizer and its version by k-means.
    """
    device = run.hardware.device
    tokenizer.to(device).eval()
    unreadable: Unreadable = []
    codes, patching = tokenizer.codes, _Patches(run, recipe)
    fitting = patching.of_some(train)
    centers = typical_patches(fitting, codes)
    shapes = typical_patches(normalized(fitting, fitting), codes)
    ours, plain, with_levels = (_Tally(patching, codes) for _ in range(3))
    pictures: list[Picture] = []
    shown = set(np.linspace(0, len(test) - 1, _SHOWN).astype(int).tolist())
    for batch in patching.images(test, unreadable):
        patches = patching.of(batch.images)
        known, grid = filled(patches), patch_grid(size_of(batch.images), recipe.patch_size)
        coded = tokenizer.codes_of(known.to(device))
        rebuilt = tokenizer.decode(tokenizer.values_of(coded), grid).cpu()
        ours.add(rebuilt, patches, coded.cpu())
        coded = nearest(known, centers)
        plain.add(centers[coded], patches, coded)
        variance, mean = var_mean(patches, batch.images)
        coded = nearest(filled(normalized(patches, batch.images)), shapes)
        with_levels.add(shapes[coded] * variance.sqrt() + mean, patches, coded)
        for row, position in enumerate(batch.positions):
            if position in shown:
                typical = centers[nearest(known[row], centers)]
                versions = (patches[row], rebuilt[row], typical)
                drawn = [patching.picture(version, grid) for version in versions]
                pictures.append(Picture(drawn, test.name(position)))
    result = Judged(
        codes=codes,
        images=ours.images,
        tokenizer=ours.coded(),
        kmeans=plain.coded(),
        kmeans_with_levels=with_levels.coded(),
    )
    return result, pictures, unreadable


class _Tally:
    """Sums of errors and counts of codes over images."""

    def __init__(self, patching: _Patches, codes: int) -> None:
        self.patching, self.codes, self.images = patching, codes, 0
        self.squares = self.known = 0.0
        self.counts = torch.zeros(codes, dtype=torch.long)

    def add(
        self, rebuilt: Float[Tensor, "b n p"], patches: Float[Tensor, "b n p"], coded: Tensor
    ) -> None:
        """Add a batch of images; missing values do not count."""
        off = self.patching.levels(rebuilt) - self.patching.levels(patches)
        self.squares += float(off.double().square().nansum())
        self.known += float((~off.isnan()).sum())
        self.counts += torch.bincount(coded.flatten(), minlength=self.codes)
        self.images += len(patches)

    def coded(self) -> Coded:
        """The result over all images."""
        return Coded(
            psnr=round(-10 * math.log10(max(self.squares / self.known, 1e-12)), 2),
            perplexity=round(float(perplexity_of(self.counts)), 1),
            used=int((self.counts > 0).sum()),
        )


def check_patches(recipe: Tokenizing, train: ImageSource) -> None:
    """Check that there are at least as many patches as codes.

    Raises:
        DataError: with the number of patches and a remedy.
    """
    grid = patch_grid(recipe.image_size, recipe.patch_size)
    patches = len(train) * grid.height * grid.width
    if patches < recipe.tokenizer.codes:
        fits = 2 ** (patches.bit_length() - 1)
        remedy = f"set --tokenizer.codes {fits}" if fits >= LEAST_CODES else "add images"
        raise DataError(
            f"{len(train)} images of {grid.height} x {grid.width} patches are {patches} patches, fewer than the "
            f"{recipe.tokenizer.codes} codes to learn; {remedy}"
        )
