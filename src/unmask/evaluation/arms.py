"""The arms of a frozen protocol: the encoder, the same encoder with random weights, and raw pixels.

Each gives one row of scores per feature.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from unmask.annotations import AnyAnnotations
from unmask.data.draws import draw_few
from unmask.encoders.vit import VisionTransformer
from unmask.evaluation.features import Features, Tokens, Vectors
from unmask.evaluation.frozen import (
    FROZEN,
    PLAIN,
    PRETRAINED,
    RANDOM,
    RAW,
    Frozen,
    FrozenScore,
    Row,
    evaluate,
)
from unmask.evaluation.pooling import means_for, of_features, pooled
from unmask.evaluation.protocols import Question, Subject
from unmask.evaluation.raw import (
    averaged,
    averaged_size,
    raw_pixels,
    raw_tokens,
    raw_words,
    token_size,
)
from unmask.evaluation.store import CachedFeatures, FeatureStore, features_folder
from unmask.evaluation.vectors import DEFAULT, Fitted

_Cached = CachedFeatures[Features] | CachedFeatures[Tokens] | CachedFeatures[Vectors]


class Pair(NamedTuple):
    """Features of the training and of the test images."""

    train: Features | Tokens | Vectors
    test: Features | Tokens | Vectors
    vectors: str = PLAIN
    """As in `Row`."""


class FrozenArm(NamedTuple):
    """The features of an encoder, or raw pixels."""

    name: str
    pairs: list[Pair]
    images_per_second: float
    """Speed of the encoder when the features were computed."""
    source: Literal["computed", "kept"]
    notes: list[str]
    device: torch.device
    """Device for training heads on the features."""
    about: str = ""
    """What the setting of its rows says besides that of the protocol."""
    fitted: Fitted | None = None
    """The rule that whitened the vectors."""
    vectors_of: Callable[[Tensor], Tensor] | None = None
    """Images [b c h w] on the device to vectors as those of the last pair; None where vectors are not whitened."""


def frozen_arms(question: Question, subject: Subject) -> Iterator[FrozenArm]:
    """Features of the encoder and, unless the control is `none`, of random weights, and raw pixels; cached on disk."""
    model = subject.model
    yield _encoder_arm(PRETRAINED, model.encoder, question, subject)
    if question.beside_frozen:
        untrained = model.spec.build_encoder(model.run.seed if model.run else 0)
        yield _encoder_arm(RANDOM, untrained.to(model.device).eval(), question, subject)
        yield _raw_arm(question, subject)


def _encoder_arm(
    name: str, encoder: VisionTransformer, question: Question, subject: Subject
) -> FrozenArm:
    """The features of an encoder; for k-NN its whitened vectors too."""
    model, labelled = subject.model, subject.labelled
    store = FeatureStore(features_folder(subject.path), encoder, model.spec, model.device)
    kind = store.tokens if question.protocol == "attentive" else store.features
    train, test = kind(labelled.train), kind(labelled.test)
    arm = _arm(name, train, test, model.device)
    if not question.whitens:
        return arm
    means = means_for(DEFAULT, store, labelled.train) if DEFAULT.needs_positions else None
    position_means = None if means is None else means.features.means
    # features that cannot be cached must not be computed twice
    train_vectors, test_vectors = (
        of_features(DEFAULT, cached.features)
        or pooled(DEFAULT, store, source, position_means).features
        for source, cached in ((labelled.train, train), (labelled.test, test))
    )
    fitted = DEFAULT.fit(train_vectors.vectors, position_means)
    arm = _with_fitted(arm, fitted, train_vectors, test_vectors)
    return arm._replace(vectors_of=partial(fitted.of_images, encoder))


def _raw_arm(question: Question, subject: Subject) -> FrozenArm:
    """Raw pixels, which an encoder must beat; for k-NN whitened too."""
    spec, labelled, device = subject.model.spec, subject.labelled, subject.model.device
    if question.protocol == "attentive":
        size = token_size(spec, len(labelled.train))
        train, test = (raw_tokens(spec, part, size) for part in (labelled.train, labelled.test))
        return _arm(RAW, train, test, device)._replace(about=raw_words(spec, size))
    size = averaged_size(spec.image_size, spec.channels, len(labelled.train))
    train, test = (raw_pixels(spec, part, size) for part in (labelled.train, labelled.test))
    arm = _arm(RAW, train, test, device)._replace(about=raw_words(spec, size))
    if not question.whitens:
        return arm
    fitted = DEFAULT.without_tokens.fit(train.features.vectors)
    arm = _with_fitted(arm, fitted, train.features, test.features)
    return arm._replace(
        vectors_of=lambda images: fitted.of(
            averaged(images.cpu(), spec.statistics, size).flatten(1)
        )
    )


def _arm(name: str, train: _Cached, test: _Cached, device: torch.device) -> FrozenArm:
    """The arm of some features as they are."""
    images = len(train.features.labels) + len(test.features.labels)
    return FrozenArm(
        name=name,
        pairs=[Pair(train.features, test.features)],
        images_per_second=images / max(train.seconds + test.seconds, 1e-9),
        source="kept" if train.from_disk and test.from_disk else "computed",
        notes=[*train.notes, *test.notes],
        device=device,
    )


def _with_fitted(arm: FrozenArm, fitted: Fitted, train: Vectors, test: Vectors) -> FrozenArm:
    """The arm with centred and whitened vectors besides."""
    train, test = (part._replace(vectors=fitted.of(part.vectors)) for part in (train, test))
    pair = Pair(train, test, fitted.rule.words)
    return arm._replace(pairs=[*arm.pairs, pair], fitted=fitted)


def frozen_rows(arm: FrozenArm, question: Question, annotations: AnyAnnotations) -> Iterator[Row]:
    """The scores of the features for every amount of labels."""
    assert question.protocol in FROZEN
    protocol = cast(Frozen, question.protocol)
    for amount in question.labels:
        started = time.perf_counter()
        results: dict[tuple[str, str], list[FrozenScore]] = {}
        for seed in question.draws(amount):
            for pair in arm.pairs:
                for score in _scored(pair, protocol, annotations, amount, seed, arm.device):
                    results.setdefault((score.feature, pair.vectors), []).append(score)
        seconds = time.perf_counter() - started
        for (feature, vectors), draws in results.items():
            setting = draws[-1].setting
            yield Row(
                arm=arm.name,
                protocol=protocol,
                feature=feature,
                labels=amount,
                scores=[draw.score for draw in draws],
                setting=f"{setting}; {arm.about}" if arm.about else setting,
                seconds=seconds,
                images_per_second=arm.images_per_second,
                source=arm.source,
                vectors=vectors,
                right=tuple(draw.right for draw in draws if draw.right is not None),
            )


def _scored(
    pair: Pair,
    protocol: Frozen,
    annotations: AnyAnnotations,
    amount: str,
    seed: int,
    device: torch.device,
) -> list[FrozenScore]:
    """The scores of a draw of labels."""
    labels = pair.train.labels.long().numpy()
    chosen = torch.from_numpy(draw_few(labels, annotations.names, amount, seed))
    few_images = pair.train.rows(chosen)
    return evaluate(few_images, pair.test, protocol, annotations, seed=seed, device=device)
