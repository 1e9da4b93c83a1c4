"""Odd places in images: the distance of patch features to those of normal images.

A memory of the patches of normal images, thinned out to a coreset, and the Euclidean distance of each patch of a new image to
the nearest of them. After PatchCore (Roth and others, "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022,
section 3), with patch tokens in place of features of a convolutional network, as in AnomalyDINO (Damm and others, 2025). The
reconstruction error of a masked autoencoder is not used.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import ImageSource, Size
from unmask.data.in_order import Ordered, Unreadable, in_order
from unmask.data.views import SquashedImage
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError, SettingsError
from unmask.evaluation.patch_index import PatchIndex, faiss_library
from unmask.evaluation.patches import PatchVectors, check_room
from unmask.evaluation.vectors import tokens_at
from unmask.formats.model import ModelSpec
from unmask.progress import counted
from unmask.randomness import generator
from unmask.spec import sized, within

_BATCH = 16
_CANDIDATES = 10  # patches for each one that is kept, among which the coreset is chosen
_MOST_DISTANCES = 2**25  # at a time: 128 MiB
_USUAL, _RARE = (
    0.95,
    0.999,
)  # shares of normal patches below the start and the middle of the heat scale


@dataclass(frozen=True, kw_only=True)
class OddRule:
    """How odd places are found."""

    block: int | None = None
    """The block whose patch tokens are compared, counted from 1; null for the last."""

    around: int = 1
    """Side of the square of patches over which tokens are averaged before they are compared; 1 for none, which finds the
    smallest defects."""

    positions: bool = True
    """Whether the mean token of each position over the normal images is subtracted first. Tokens of masked autoencoders say
    much about where a patch is."""

    aligned: int | None = None
    """For images in which everything has its place: patches are compared only with those at most so many rows and columns
    away. Null for images that are not aligned."""

    memory: int = 5000
    """Patches of normal images to keep."""

    index: Literal["exact", "ivf"] = "exact"
    """How the nearest remembered patch is found: exact, or ivf, an index of FAISS that is faster from about 20,000 patches on."""

    top: float = 0.01
    """The score of an image is the mean distance of this share of its patches, the oddest; of one patch at least."""

    alarms: float = 0.05
    """Share of normal images that may be called odd."""

    held_out: float = 0.2
    """Share of the normal images that the threshold is chosen on, and that are not remembered."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "block", usual="blocks are counted from 1")
        within(self, "[0, inf)", "aligned")
        within(self, "[1, inf)", "around")
        within(self, "(0, 1)", "alarms", "held_out")
        within(self, "(0, 1]", "top")
        sized(self, "memory", most=10**7)
        if self.around % 2 == 0:
            raise SettingsError(f"around must be an odd number such as 3, got {self.around}")
        if self.index != "exact" and self.aligned is not None:
            raise SettingsError(
                f"index is {self.index}, but aligned images are compared with nearby places only; leave out one of the two"
            )

    def check(self) -> None:
        """Raises ResourceError if the index needs FAISS, and it is not installed."""
        if self.index != "exact":
            faiss_library(f"--index {self.index}")


def tokens_of_block(encoder: VisionTransformer, block: int | None) -> PatchVectors:
    """The patch tokens after a block and the encoder's final norm."""
    return lambda images: tokens_at(encoder, images, block)[1]


class Threshold(NamedTuple):
    """From which score on an image is odd."""

    score: float
    alarms: float
    """The share of normal images above it that is to be expected at most."""
    images: int
    """Held-out normal images that it was chosen on."""

    @staticmethod
    def chosen(scores: Float[Tensor, " n"], alarms: float) -> "Threshold":
        """The smallest score of a held-out image above which new normal images lie with at most this probability.

        Of n held-out images in order, a new one is as likely in each of the n + 1 gaps, so above the k-th smallest with
        probability 1 - k / (n + 1) (split conformal prediction; Vovk and others, 2005). With too few images for `alarms` it is
        the largest score, and `alarms` says what it stands for.
        """
        ordered, count = scores.sort().values, len(scores)
        rank = min(count, math.ceil((count + 1) * (1 - alarms) - 1e-9))
        return Threshold(float(ordered[rank - 1]), (count + 1 - rank) / (count + 1), count)


class Memory(NamedTuple):
    """The patches of normal images that others are compared with, and what normal distances are."""

    rule: OddRule
    grid: Size
    """Rows and columns of patches in an image."""
    vectors: Float[Tensor, "m d"]
    places: Int[Tensor, " m"]
    """Number of the position of each, row by row."""
    means: Float[Tensor, "n d"]
    """The mean token of each position over normal images; zeros if nothing is subtracted."""
    threshold: Threshold
    low: float
    """One in twenty patches of held-out normal images is farther: the lower end of a heat scale."""
    high: float
    """One in a thousand of these patches is farther: the middle of the heat scale."""
    normal: Float[Tensor, " n"]
    """The scores of the held-out normal images."""
    search: PatchIndex | None = None
    """The index of `vectors`, unless the search is exact."""

    def distances(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
        """The Euclidean distance of each patch to the nearest one that is remembered."""
        vectors = compared(tokens, self.means, self.grid, self.rule)
        return _nearest(vectors, self) if self.search is None else self.search.distances(vectors)

    def indexed(self) -> "Memory":
        """With the index that the rule asks for.

        Raises:
            ResourceError: without FAISS.
        """
        index = None if self.rule.index == "exact" else PatchIndex.of(self.vectors)
        return self._replace(search=index)

    @property
    def counted(self) -> int:
        """How many patches of an image its score is the mean of."""
        return max(1, round(self.rule.top * self.grid.height * self.grid.width))

    def score(self, distances: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """The score of each image: the mean of its largest distances."""
        return distances.topk(self.counted, dim=1).values.mean(1)

    def heat(self, distances: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Distances on a scale from 0, reached by one normal patch in twenty, to 1; one in a thousand reaches 0.5."""
        return ((distances - self.low) / (2 * max(self.high - self.low, 1e-12))).clamp(0, 1)

    def map(self, distances: Float[Tensor, " n"], size: Size) -> Float[Tensor, "h w"]:
        """The distances of an image's patches, interpolated to a size in pixels."""
        grid = distances.reshape(1, 1, *self.grid)
        return F.interpolate(grid, tuple(size), mode="bilinear", align_corners=False)[0, 0]


@torch.inference_mode()
def described(
    source: ImageSource, spec: ModelSpec, size: Size, vectors: PatchVectors, device: torch.device
) -> tuple[Float[Tensor, "images n d"], Unreadable]:
    """The vectors of all patches of all readable images, squashed to `size`; and (name, reason) of the others.

    Raises:
        ResourceError: if they do not fit in memory.
        DataError: if they are not finite.
    """
    unreadable: Unreadable = []
    found: list[Tensor] = []
    for batch in squashed(source, spec, size, unreadable, "reading normal images"):
        found.append(finite(vectors(batch.images.to(device))))
        if len(found) == 1:
            # read, joined, and compared
            check_room(3 * found[0].nbytes / len(found[0]) * len(source), len(source))
    return torch.cat(found), unreadable


def finite(vectors: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """The vectors, on the CPU.

    Raises:
        DataError: if values are not finite.
    """
    vectors = vectors.float().cpu()
    if not bool(vectors.isfinite().all()):
        raise DataError(
            "features of images are not finite; check the encoder's weights with `unmask doctor`"
        )
    return vectors


def squashed(
    source: ImageSource, spec: ModelSpec, size: Size, unreadable: Unreadable, what: str
) -> Iterator[Ordered]:
    """Batches of the readable images, squashed to `size`, with their annotations as they were found."""
    batches = in_order(
        source,
        SquashedImage(),
        size,
        spec.statistics,
        unreadable,
        batch_size=_BATCH,
        as_found=True,
    )
    return counted(batches, len(source), what, lambda batch: len(batch.positions))


def remember(tokens: Float[Tensor, "images n d"], grid: Size, rule: OddRule, seed: int) -> Memory:
    """The memory of normal images; a share of them, drawn from the seed, is held out for the threshold.

    Raises:
        SettingsError: if there are fewer than two images.
    """
    images = len(tokens)
    if images < 2:
        raise SettingsError(
            f"at least 2 normal images are needed, one to remember and one to find the threshold on, got {images}; "
            "some dozens are usual"
        )
    order = torch.randperm(images, generator=generator("cpu", "normal images", seed))
    count = min(images - 1, max(1, round(rule.held_out * images)))
    held, kept = order[:count].sort().values, order[count:].sort().values
    means = tokens[kept].mean(0) if rule.positions else torch.zeros_like(tokens[0])
    vectors = compared(tokens[kept], means, grid, rule)
    chosen, places = (
        _coreset(vectors, rule.memory, seed)
        if rule.aligned is None
        else _coreset_of_places(vectors, rule.memory)
    )
    empty = Threshold(0.0, 0.0, 0)
    memory = Memory(rule, grid, chosen, places, means, empty, 0.0, 0.0, torch.zeros(0)).indexed()
    distances = torch.cat([memory.distances(part) for part in tokens[held].split(_BATCH)])
    scores = memory.score(distances)
    ordered = distances.flatten().sort().values
    return memory._replace(
        threshold=Threshold.chosen(scores, rule.alarms),
        low=float(ordered[int(_USUAL * (len(ordered) - 1))]),
        high=float(ordered[int(_RARE * (len(ordered) - 1))]),
        normal=scores,
    )


def compared(
    tokens: Float[Tensor, "b n d"], means: Float[Tensor, "n d"], grid: Size, rule: OddRule
) -> Float[Tensor, "b n d"]:
    """Tokens as they are compared: without what their position says, and averaged over neighbours."""
    tokens = tokens - means
    if rule.around > 1:
        maps = tokens.transpose(1, 2).unflatten(2, tuple(grid))
        maps = F.avg_pool2d(maps, rule.around, 1, rule.around // 2, count_include_pad=False)
        tokens = maps.flatten(2).transpose(1, 2)
    return tokens


def _nearest(vectors: Float[Tensor, "b n d"], memory: Memory) -> Float[Tensor, "b n"]:
    close = None if memory.rule.aligned is None else near(memory, memory.rule.aligned)
    images = max(1, _MOST_DISTANCES // (vectors.shape[1] * len(memory.vectors)))
    found: list[Tensor] = []
    for part in vectors.split(images):
        distances = torch.cdist(part, memory.vectors.to(part))
        if close is not None:
            distances = distances.masked_fill(~close, torch.inf)
        found.append(distances.amin(2))
    return torch.cat(found)


def near(memory: Memory, most: int) -> Bool[Tensor, "n m"]:
    """Which remembered patches are at most so many rows and columns away from each position."""
    columns = memory.grid.width
    all_places = torch.arange(memory.grid.height * columns)
    rows = (all_places // columns)[:, None] - memory.places // columns
    across = (all_places % columns)[:, None] - memory.places % columns
    return (rows.abs() <= most) & (across.abs() <= most)


def _coreset(
    vectors: Float[Tensor, "images n d"], count: int, seed: int
) -> tuple[Float[Tensor, "m d"], Int[Tensor, " m"]]:
    """At most `count` vectors that leave none of the others far away, and their positions.

    Greedy k-centre (Sener and Savarese, 2018; PatchCore, algorithm 1): again and again the vector that is farthest from those
    chosen. It chooses among ten times as many drawn at random, so that it stays fast.
    """
    flat = vectors.flatten(0, 1)
    random = generator("cpu", "coreset", seed)
    drawn = torch.randperm(len(flat), generator=random)[: _CANDIDATES * count]
    if len(flat) <= count:
        chosen = torch.arange(len(flat))
    else:
        candidates = flat[drawn]
        chosen = drawn[_farthest(candidates[None], count)[0]].sort().values
    return flat[chosen], chosen % vectors.shape[1]


def _coreset_of_places(
    vectors: Float[Tensor, "images n d"], count: int
) -> tuple[Float[Tensor, "m d"], Int[Tensor, " m"]]:
    """The same for each position by itself, equally many of each."""
    images, places = vectors.shape[:2]
    each = min(images, max(1, count // places))
    by_place = vectors.transpose(0, 1)
    chosen = _farthest(by_place, each)
    found = by_place.gather(1, chosen[:, :, None].expand(-1, -1, vectors.shape[2]))
    return found.flatten(0, 1), torch.arange(places).repeat_interleave(each)


def _farthest(vectors: Float[Tensor, "sets n d"], count: int) -> Int[Tensor, "sets count"]:
    """Of each set, the first vector, then again and again the one that is farthest from those chosen."""
    chosen = [torch.zeros(len(vectors), dtype=torch.long)]
    squares = vectors.square().sum(2)
    nearest = torch.full_like(squares, torch.inf)
    for _ in counted(range(count - 1), count - 1, "choosing patches"):
        rows = torch.arange(len(vectors)), chosen[-1]
        products = (vectors @ vectors[rows][:, :, None])[:, :, 0]
        nearest = torch.minimum(nearest, squares + squares[rows][:, None] - 2 * products)
        chosen.append(nearest.argmax(1))
    return torch.stack(chosen, 1)
