"""The vectors of all images of a source by a `VectorRule`, from the cache where possible."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.in_order import Unreadable
from unmask.encoders.chunks import chunk_for, in_chunks
from unmask.encoders.vit import VisionTransformer
from unmask.evaluation.features import (
    Features,
    PositionMeans,
    Tokens,
    Vectors,
    labels_of,
    whole_images,
)
from unmask.evaluation.store import CachedFeatures, FeatureStore
from unmask.evaluation.vectors import VectorRule, tokens_at
from unmask.tensors import hash_of_tensors

Means = Float[Tensor, "n d"] | None


def means_for(
    rule: VectorRule, store: FeatureStore, source: ImageSource
) -> CachedFeatures[PositionMeans]:
    """The mean token of each position over the images of a source, at the rule's block."""
    return store.computed(
        source, PositionMeans, partial(_position_means, rule.block), {"block": rule.block}
    )


def of_features(rule: VectorRule, features: Features | Tokens) -> Vectors | None:
    """The vectors before centring and whitening, if they are among the features of the last block; else None."""
    if rule.block is not None or rule.needs_positions or rule.pooling == "gem":
        return None
    assert isinstance(features, Features)
    vectors = features.cls if rule.pooling == "class" else features.mean
    return Vectors(vectors, features.labels, features.positions, features.unreadable, rule.feature)


def pooled(
    rule: VectorRule, store: FeatureStore, source: ImageSource, means: Means
) -> CachedFeatures[Vectors]:
    """A vector of each readable image, pooled but neither centred nor whitened."""
    facts: dict[str, Any] = {"pooling": rule.pooling, "block": rule.block}
    if means is not None:
        facts["means"] = hash_of_tensors({"means": means})
    cached = store.computed(source, Vectors, partial(_vectors, rule, means), facts)
    return replace(cached, features=cached.features._replace(feature=rule.feature))


@torch.inference_mode()
def _vectors(
    rule: VectorRule,
    means: Means,
    encoder: VisionTransformer,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
) -> Vectors:
    vectors = torch.empty(len(source), encoder.embed_dim)
    positions: list[int] = []
    unreadable: Unreadable = []

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        return (rule.pool(encoder, images, means),)

    chunk = chunk_for(encoder, size, device)
    for rows, images in whole_images(source, size, statistics, device, None, positions, unreadable):
        (vectors[rows],) = in_chunks(forward, images, positions[rows], chunk, device)
    labels = labels_of(source, positions)
    return Vectors(vectors[: len(positions)], labels, torch.tensor(positions), unreadable)


@torch.inference_mode()
def _position_means(
    block: int | None,
    encoder: VisionTransformer,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
) -> PositionMeans:
    grid = encoder.mask_grid(size)
    sums = torch.zeros(grid.height * grid.width, encoder.embed_dim, dtype=torch.float64)
    positions: list[int] = []
    unreadable: Unreadable = []

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        return (tokens_at(encoder, images, block)[1],)

    chunk = chunk_for(encoder, size, device)
    for rows, images in whole_images(source, size, statistics, device, None, positions, unreadable):
        (patches,) = in_chunks(forward, images, positions[rows], chunk, device)
        sums += patches.double().sum(0).cpu()
    return PositionMeans((sums / len(positions)).float(), unreadable)
