"""Scoring frozen patch features on class maps under a protocol of `dense_protocols.py`, beside controls."""

import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unmask.annotations import ClassMaps
from unmask.contracts import Encoder, ImageSource
from unmask.data.draws import held_out_rows
from unmask.errors import DataError
from unmask.evaluation.dense_protocols import DenseProtocol
from unmask.evaluation.frozen import CPU, PRETRAINED, RANDOM, RAW
from unmask.evaluation.patch_classes import (
    Distance,
    Logistic,
    commonest,
    nearest,
    pixel_votes,
    weighted_votes,
)
from unmask.evaluation.patches import (
    Patches,
    PatchVectors,
    colours_of_patches,
    pixels_of_patches,
    read_patches,
    tokens_of,
)
from unmask.formats.model import ModelSpec
from unmask.randomness import derive
from unmask.tasks.class_maps_score import ClassMapsScoring, MeanIoU

Controls = Literal["all", "none"]


class Scored(NamedTuple):
    """The score on test pictures."""

    score: MeanIoU
    counts: Int[Tensor, "n 3 classes"]
    """For each picture the pixels of each class that are right, that are true, and that are predicted."""


class DenseRow(NamedTuple):
    """The score of one arm under a protocol."""

    arm: str
    """The encoder, the same with random weights, or raw pixels."""
    feature: str
    score: MeanIoU
    setting: str
    """The chosen settings."""
    stamp: str
    """The whole protocol in words."""
    seconds: float
    counts: Int[Tensor, "n 3 classes"]
    """As in `Scored`."""


class Chosen(NamedTuple):
    """Settings of a classifier: one candidate of each."""

    neighbors: int = 0
    distance: Distance = "cosine"
    strength: float = 0.0

    @property
    def words(self) -> str:
        """The settings in words."""
        if self.neighbors:
            return f"k = {self.neighbors}, {self.distance}"
        return f"C = {self.strength:g}"


def dense_rows(
    protocol: DenseProtocol,
    encoder: Encoder,
    spec: ModelSpec,
    train: ImageSource,
    test: ImageSource,
    *,
    seed: int = 0,
    controls: Controls = "all",
    device: torch.device = CPU,
) -> Iterator[DenseRow]:
    """The score of an encoder and, unless controls are `none`, of random weights, raw pixels and mean colours of patches."""
    kind = train.annotations
    assert isinstance(kind, ClassMaps)
    ignored = tuple(sorted({kind.ignored, *protocol.ignored}))
    stamp = protocol.words(spec, ignored, seed)
    for arm, feature, vectors in _arms(encoder, spec, seed, controls, device):
        started = time.perf_counter()
        read = (
            read_patches(
                source,
                protocol.size(spec),
                spec.encoder.patch_size,
                spec.statistics,
                vectors,
                ignored=ignored,
                device=device,
            )
            for source in (train, test)
        )
        train_patches, test_patches = read
        (score, counts), chosen = scored(protocol, train_patches, test_patches, kind, seed)
        seconds = time.perf_counter() - started
        yield DenseRow(arm, feature, score, chosen.words, stamp, seconds, counts)


def _arms(
    encoder: Encoder, spec: ModelSpec, seed: int, controls: Controls, device: torch.device
) -> Iterator[tuple[str, str, PatchVectors]]:
    yield PRETRAINED, "patches", tokens_of(encoder)
    if controls == "none":
        return
    yield RANDOM, "patches", tokens_of(spec.build_encoder(seed).to(device).eval())
    side, statistics = spec.encoder.patch_size, spec.statistics
    yield RAW, "pixels", pixels_of_patches(side, statistics)
    yield RAW, "colours", colours_of_patches(side, statistics)


def scored(
    protocol: DenseProtocol, train: Patches, test: Patches, kind: ClassMaps, seed: int
) -> tuple[Scored, Chosen]:
    """The score on test patches with settings chosen on held-out training pictures, and these settings."""
    images = len(train.vectors)
    held_out = held_out_rows(np.arange(images), protocol.held_out, seed)
    rest, held = (torch.from_numpy(np.flatnonzero(rows)) for rows in (~held_out, held_out))
    candidates = _candidates(protocol)
    if len(candidates) > 1 and len(held) and len(rest):
        fitting, choosing = _standardised(train.rows(rest), train.rows(held))
        scores = [
            each.score.mean_iou
            for each in _scores(protocol, candidates, fitting, choosing, kind, seed)
        ]
        candidates = [candidates[int(np.argmax(scores))]]
    train, test = _standardised(train, test)
    (score,) = _scores(protocol, candidates[:1], train, test, kind, seed)
    return score, candidates[0]


def _candidates(protocol: DenseProtocol) -> list[Chosen]:
    if protocol.classifier == "logistic":
        return [Chosen(strength=strength) for strength in protocol.strengths]
    return [Chosen(k, distance) for distance in protocol.distances for k in protocol.neighbors]


def _standardised(train: Patches, test: Patches) -> tuple[Patches, Patches]:
    """Each value of a vector with mean 0 and deviation 1 over all training patches; constant values become 0."""
    rows = train.vectors.flatten(0, 1)
    deviation, mean = torch.std_mean(rows.double(), 0, correction=0)
    scale = torch.where(deviation > 0, 1 / deviation, 0.0)
    ours, theirs = (
        one._replace(vectors=((one.vectors - mean.float()) * scale.float()))
        for one in (train, test)
    )
    return ours, theirs


def _scores(
    protocol: DenseProtocol,
    candidates: list[Chosen],
    train: Patches,
    test: Patches,
    kind: ClassMaps,
    seed: int,
) -> Iterator[Scored]:
    """The score of each candidate; neighbours are looked up once for each distance."""
    classes, queries = len(kind.names), test.vectors.flatten(0, 1)
    usable = _usable(train, classes, protocol.most_patches, seed)
    near: dict[Distance, tuple[Tensor, Tensor]] = {}
    for chosen in candidates:
        if protocol.classifier == "logistic":
            model = Logistic(usable.vectors, usable.labels, chosen.strength, protocol.iterations)
            found = _spread(protocol, model.probabilities(queries, classes), test)
        else:
            if chosen.distance not in near:
                most = max(protocol.neighbors)
                near = {chosen.distance: nearest(usable.vectors, queries, most, chosen.distance)}
            found = _voted(protocol, chosen, near[chosen.distance], usable, test, classes)
        yield _counted(found, test, kind)


class Usable(NamedTuple):
    """The training patches with a class."""

    vectors: Float[Tensor, "n d"]
    pixels: Int[Tensor, "n pixels"]
    """The class of each pixel; -1 if it is ignored."""
    labels: Int[Tensor, " n"]
    """The most frequent class."""


def _usable(train: Patches, classes: int, most: int | None, seed: int) -> Usable:
    pixels = train.classes.flatten(0, 1)
    labels = commonest(pixels, classes)
    if not bool((labels >= 0).any()):
        raise DataError(
            f"none of the {len(labels):,} patches of the training pictures has a class, because in each at least as many pixels "
            "are ignored as belong to any class; label larger areas, or more pictures"
        )
    rows = _drawn((labels >= 0).nonzero()[:, 0], most, seed)
    return Usable(train.vectors.flatten(0, 1)[rows], pixels[rows], labels[rows])


def _voted(
    protocol: DenseProtocol,
    chosen: Chosen,
    near: tuple[Tensor, Tensor],
    usable: Usable,
    test: Patches,
    classes: int,
) -> Int[Tensor, "m pixels"]:
    """The class of each pixel of each test patch by the votes of its nearest training patches."""
    similarities, neighbors = (part[:, : chosen.neighbors] for part in near)
    if protocol.spread == "votes":
        return pixel_votes(neighbors, usable.pixels, classes)
    scores = weighted_votes(similarities, neighbors, usable.labels, classes, protocol.temperature)
    return _spread(protocol, scores, test)


def _drawn(rows: Int[Tensor, " n"], most: int | None, seed: int) -> Int[Tensor, " k"]:
    if most is None or len(rows) <= most:
        return rows
    chosen = np.random.default_rng(derive("patches", seed)).permutation(len(rows))[:most]
    return rows[torch.from_numpy(np.sort(chosen))]


def _spread(protocol: DenseProtocol, scores: Tensor, test: Patches) -> Int[Tensor, "m pixels"]:
    """The class of each pixel of each patch."""
    pixels = test.classes.shape[2]
    if protocol.spread == "patches":
        return scores.argmax(1)[:, None].expand(-1, pixels)
    side = round(pixels**0.5)
    size = tuple(side * length for length in test.grid)
    maps = scores.unflatten(0, (-1, *test.grid)).movedim(3, 1)  # [images classes rows columns]
    found = [
        F.interpolate(one[None], size, mode="bilinear")[0].argmax(0).unflatten(0, (-1, side))
        for one in maps
    ]
    stacked = torch.stack(found).unflatten(3, (-1, side))  # [image row y column x]
    return stacked.movedim(3, 2).flatten(3).flatten(0, 2)


def _counted(found: Int[Tensor, "m pixels"], test: Patches, kind: ClassMaps) -> Scored:
    """The score of the classes of all pixels of all patches, picture by picture."""
    kind = ClassMaps(names=kind.names, ignored=-1)  # of `Patches.classes`
    whole, counts = ClassMapsScoring(kind), list[Tensor]()
    for predicted, truth in zip(
        found.unflatten(0, (-1, test.classes.shape[1])), test.classes, strict=True
    ):
        one = ClassMapsScoring(kind)
        one.add((predicted,), (truth.long(),))
        counts.append(one.of_classes())
        whole = whole.merged([whole, one])
    return Scored(whole.result(), torch.stack(counts))
