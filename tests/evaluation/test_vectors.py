"""How vectors are pooled, centred and whitened, against literal versions in numpy."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.problems import random
from runs import tiny

from unmask.contracts import ImageSource, Size
from unmask.data import Folder
from unmask.data.views import center_crop
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError, SettingsError
from unmask.evaluation.features import features, patch_tokens
from unmask.evaluation.pooling import means_for, of_features, pooled
from unmask.evaluation.store import FeatureStore
from unmask.evaluation.vectors import (
    DEFAULT,
    PLAIN,
    Fitted,
    VectorRule,
    gem,
    load_fitted,
    tokens_at,
)
from unmask.formats.model import ModelSpec
from unmask.spec import from_json, to_json
from unmask.tensors import hash_of_tensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_classes(tmp_path_factory.mktemp("vectors") / "data", count=6)


@pytest.fixture(scope="module")
def spec(classes: Path) -> ModelSpec:
    encoder = replace(tiny.RECIPE.encoder, depth=2)
    return tiny.make_run(classes, recipe=replace(tiny.RECIPE, encoder=encoder)).model


def drawn(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Vectors with correlated values of very different sizes, far from 0."""
    generator = random(seed)
    mixing = torch.randn(width, width, generator=random(9)) * torch.logspace(0, -1, width)
    return torch.randn(count, width, generator=generator) @ mixing + 5


@pytest.mark.parametrize(
    "rule",
    [
        PLAIN,
        DEFAULT,
        VectorRule(pooling="class", block=3, centred="mean", whitened=0),
        VectorRule(pooling="gem", centred="positions", whitened=32),
    ],
)
def test_a_rule_survives_json(rule: VectorRule) -> None:
    assert from_json(VectorRule, json.loads(json.dumps(to_json(rule)))) == rule


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"whitened": -1}, "whitened must not be negative, got -1"),
        ({"block": 0}, "block must be at least 1, got 0"),
        ({"pooling": "class", "centred": "positions"}, "which is for patch tokens"),
        ({"centred": "none", "whitened": 8}, "which subtracts the mean, but centred is none"),
    ],
)
def test_rules_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        VectorRule(**settings)


def test_gem_is_the_cube_root_of_the_mean_of_cubes() -> None:
    tokens = torch.randn(3, 5, 4, generator=random(0))
    expected = np.empty((3, 4))
    for image in range(3):
        for value in range(4):
            mean = np.mean([float(t) ** 3 for t in tokens[image, :, value]])
            expected[image, value] = math.copysign(abs(mean) ** (1 / 3), mean)
    np.testing.assert_allclose(gem(tokens).numpy(), expected, rtol=1e-4)
    assert gem(torch.zeros(1, 2, 3)).equal(torch.zeros(1, 3))
    constant = torch.full((1, 7, 2), -0.3)
    torch.testing.assert_close(gem(constant), constant[:, 0])


@pytest.mark.parametrize(("count", "width", "kept"), [(40, 6, 6), (40, 6, 3), (5, 12, 4)])
def test_whitening_is_that_of_numpy(count: int, width: int, kept: int) -> None:
    """Projections on the eigenvectors of the covariance over the root of each eigenvalue plus a thousandth of their mean."""
    train, test = drawn(count, width), drawn(7, width, seed=1)
    fitted = VectorRule(whitened=kept if count > width else 100).fit(train)
    exact = train.double().numpy()
    mean = exact.mean(0)
    covariance = (exact - mean).T @ (exact - mean) / count
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:kept]
    scale = np.sqrt(values[order] + 1e-3 * values.mean())
    expected = (test.double().numpy() - mean) @ vectors[:, order] / scale
    found = fitted.of(test).double().numpy()
    assert found.shape == (7, kept)
    # eigenvectors have no sign, so products of vectors are compared; float32
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=2e-3, atol=2e-3)


def test_whitened_training_vectors_have_variance_one_and_no_correlation() -> None:
    train = torch.randn(4000, 5, generator=random(0)) * torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5]) + 3
    made = VectorRule(whitened=5).fit(train).of(train).double()
    assert made.mean(0).abs().max() < 1e-4
    torch.testing.assert_close(
        made.T @ made / 4000, torch.eye(5).double(), rtol=0, atol=0.1
    )  # the least variance is damped by 1e-3 of the mean


def test_centring_alone_subtracts_the_mean_of_the_training_images() -> None:
    train, test = drawn(20, 4), drawn(3, 4, seed=1)
    torch.testing.assert_close(
        VectorRule(whitened=0).fit(train).of(test), test - train.mean(0), rtol=0, atol=1e-5
    )
    assert PLAIN.fit(train).of(test).equal(test)


def test_the_width_is_cut_to_the_images_less_one() -> None:
    assert VectorRule(whitened=128).fit(drawn(9, 20)).of(drawn(2, 20)).shape == (2, 8)
    assert VectorRule(whitened=128).fit(drawn(99, 20)).of(drawn(2, 20)).shape == (2, 20)
    with pytest.raises(SettingsError, match="whitening needs at least 2 training images, got 1"):
        VectorRule(whitened=8).fit(drawn(1, 4))


def test_vectors_that_are_there_twice_add_no_directions_of_rounding() -> None:
    once = drawn(20, 60)
    twice = VectorRule(whitened=128).fit(torch.cat([once, once]))
    assert int((twice.of(once).abs().max(0).values > 0).sum()) == 19
    alone = VectorRule(whitened=128).fit(once)
    expected, found = (rule.of(drawn(4, 60, seed=1)) for rule in (alone, twice))
    torch.testing.assert_close(found @ found.T, expected @ expected.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("width", [3, 9])  # more and fewer values than images
def test_equal_vectors_stay_finite_and_nan_is_refused(width: int) -> None:
    same = torch.ones(5, width)
    fitted = VectorRule(whitened=2).fit(same)
    assert bool(fitted.of(same).isfinite().all())
    torch.testing.assert_close(fitted.inverse(fitted.of(same)), same)
    with pytest.raises(DataError, match="vectors are not finite"):
        DEFAULT.fit(torch.full((5, 3), torch.nan))


def test_tokens_after_a_block_are_normalised_as_the_last_ones(encoder: VisionTransformer) -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        encoder.norm.bias.normal_()
        first = encoder.norm(encoder.blocks[0](encoder.embed(images), 0, None))
        cls, patches = tokens_at(encoder, images, 1)
        torch.testing.assert_close(torch.cat([cls, patches], 1), first)
        last, alone = tokens_at(encoder, images, 2), tokens_at(encoder, images, None)
    assert last[0].equal(alone[0])
    assert last[1].equal(alone[1])
    with pytest.raises(
        SettingsError, match=r"block is 3, but the encoder has 2 blocks; choose 1 to 2"
    ):
        tokens_at(encoder, images, 3)


@pytest.mark.parametrize("pooling", ["class", "mean", "gem"])
@pytest.mark.parametrize("block", [None, 1])
def test_vectors_of_a_source_are_pooled_tokens(
    store: FeatureStore, encoder: VisionTransformer, classes: Path, pooling: str, block: int | None
) -> None:
    source = Folder(path=str(classes)).open()
    rule = VectorRule(pooling=pooling, block=block, whitened=0)
    found = pooled(rule, store, source, None).features
    cls, patches = (part.detach() for part in tokens_at(encoder, _cropped(source), block))
    expected = {"class": cls.mean(1), "mean": patches.mean(1), "gem": gem(patches)}[pooling]
    torch.testing.assert_close(found.vectors, expected, rtol=1e-4, atol=1e-5)
    assert found.labels.tolist() == source.labels().tolist()
    known = of_features(rule, store.features(source).features)
    assert (known is None) == (pooling == "gem" or block is not None)
    if known is not None:
        torch.testing.assert_close(known.vectors, found.vectors)
    assert pooled(rule, store, source, None).from_disk


def _cropped(source: ImageSource) -> torch.Tensor:
    """The images as evaluation sees them."""
    return torch.stack([center_crop(source[i].image, Size(8, 8)) for i in range(len(source))])


def test_the_mean_of_each_position_is_subtracted_before_pooling(
    store: FeatureStore, encoder: VisionTransformer, spec: ModelSpec, classes: Path
) -> None:
    source = Folder(path=str(classes)).open()
    tokens = patch_tokens(encoder, source, spec.image_size, spec.statistics, CPU).tokens[:, 1:]
    rule = VectorRule(pooling="gem", centred="positions", whitened=0)
    means = means_for(rule, store, source).features.means
    torch.testing.assert_close(means, tokens.mean(0))
    found = pooled(rule, store, source, means).features.vectors
    torch.testing.assert_close(found, gem(tokens - tokens.mean(0)), rtol=1e-3, atol=1e-5)
    mean = replace(rule, pooling="mean")
    centred = pooled(mean, store, source, means).features.vectors
    plain = features(encoder, source, spec.image_size, spec.statistics, CPU).mean
    torch.testing.assert_close(centred, plain - plain.mean(0), rtol=0, atol=1e-5)  # as centring


@pytest.mark.parametrize(
    "rule",
    [DEFAULT, VectorRule(pooling="gem", centred="positions", whitened=3), PLAIN],
)
def test_a_fit_makes_the_same_vectors_from_its_file(
    rule: VectorRule,
    store: FeatureStore,
    encoder: VisionTransformer,
    spec: ModelSpec,
    classes: Path,
    tmp_path: Path,
) -> None:
    source = Folder(path=str(classes)).open()
    means = means_for(rule, store, source).features.means if rule.needs_positions else None
    vectors = pooled(rule, store, source, means).features.vectors
    fitted = rule.fit(vectors, means)
    facts = {"weights": hash_of_tensors(encoder.state_dict()), "images": len(source)}
    written = fitted.save(tmp_path / "fits" / "data.safetensors", facts)
    assert [path.name for path in written] == ["data.safetensors", "data.json"]
    assert json.loads(written[1].read_text())["rule"] == to_json(rule)
    again = load_fitted(written[0], encoder)
    assert again.rule == rule
    torch.testing.assert_close(
        again.of_images(encoder, _cropped(source)), fitted.of(vectors), rtol=1e-3, atol=1e-3
    )
    with torch.no_grad():
        encoder.norm.bias.add_(1)
    with pytest.raises(SettingsError, match="was fitted for other weights"):
        load_fitted(written[0], encoder)
    written[0].write_bytes(written[0].read_bytes()[:-3])
    with pytest.raises(DataError, match="holds no vectors that can be used"):
        load_fitted(written[0], encoder)


def test_words() -> None:
    assert DEFAULT.words == "whitened to 128"
    assert PLAIN.words == ""
    assert VectorRule(whitened=0).words == "centred"
    rule = VectorRule(pooling="gem", block=4, centred="positions", whitened=64)
    assert rule.words == "block 4, position means subtracted, whitened to 64"
    assert rule.without_tokens == VectorRule(whitened=64)
    assert isinstance(Fitted(PLAIN, torch.zeros(2), None, None).of(torch.ones(1, 2)), torch.Tensor)
