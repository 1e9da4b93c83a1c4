"""The encoder as a transformer of scikit-learn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import tiny
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import unmask
from unmask.data import Digits
from unmask.errors import RunError, SettingsError
from unmask.evaluation.features import features
from unmask.evaluation.vectors import PLAIN, VectorRule

IMAGES, CLASSES = load_digits().images[:200] / 16, load_digits().target[:200]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = replace(tiny.RECIPE, batch_size=64, epochs=1.0)
    root = tmp_path_factory.mktemp("embedder") / "run"
    return tiny.finished_run(root, "digits", recipe=recipe).root


def test_vectors_are_those_of_the_rule(run: Path) -> None:
    embedder = unmask.Embedder(run, whitened=4).fit(IMAGES[:100])
    features = unmask.load(run).embed(IMAGES).mean
    expected = VectorRule(whitened=4).fit(features[:100]).of(features)
    vectors = embedder.transform(IMAGES)
    assert (vectors.shape, vectors.dtype) == ((200, 4), np.float32)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_evaluation_sees_the_same_bits(run: Path) -> None:
    model, source = unmask.load(run), Digits().open("train")
    spec = model.spec
    cpu = torch.device("cpu")
    found = features(model.encoder, source, spec.image_size, spec.statistics, cpu)
    embedded = model.embed("digits", batch_size=10, patches=False)
    count = len(source)
    assert found.mean.equal(embedded.mean[:count])
    assert found.cls.equal(embedded.cls[:count])


def test_fitting_whitens_training_images_alone(run: Path) -> None:
    embedder = unmask.Embedder(run, whitened=4)
    own = embedder.fit_transform(IMAGES[:100])
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(embedder.transform(IMAGES[:100]), own, rtol=1e-4, atol=1e-4)
    before = embedder.rule_.mean.clone()
    embedder.transform(IMAGES[100:])
    assert embedder.rule_.mean.equal(before)


@pytest.mark.parametrize(("pooling", "field"), [("mean", "mean"), ("class", "cls")])
def test_plain_vectors(run: Path, pooling: Any, field: str) -> None:
    vectors = unmask.Embedder(run, pooling=pooling, whitened=0).fit_transform(IMAGES)
    assert torch.from_numpy(vectors).equal(getattr(unmask.load(run).embed(IMAGES), field))
    assert PLAIN.whitened == 0


def test_in_a_pipeline(run: Path) -> None:
    """Above chance, which is 0.1, even after 23 steps of an encoder of 8 values."""
    classify = make_pipeline(unmask.Embedder(run), LogisticRegression())
    classify.fit(IMAGES[:150], CLASSES[:150])
    assert classify.score(IMAGES[150:], CLASSES[150:]) > 0.2


def test_clone_and_grid_search(run: Path) -> None:
    embedder = unmask.Embedder(run, whitened=2, batch_size=50)
    copied = clone(embedder.fit(IMAGES[:20]))
    assert copied.get_params() == embedder.get_params()
    assert not hasattr(copied, "rule_")
    classify = make_pipeline(unmask.Embedder(unmask.load(run)), LogisticRegression())
    search = GridSearchCV(classify, {"embedder__whitened": [0, 2]}, cv=2)
    search.fit(IMAGES[:100], CLASSES[:100])
    assert len(search.cv_results_["mean_test_score"]) == 2


def test_files_and_pictures(run: Path, tmp_path: Path) -> None:
    files: list[str] = []
    for number, image in enumerate(IMAGES[:6]):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray((image * 255).round().astype(np.uint8)).save(files[-1])
    embedder = unmask.Embedder(run, whitened=0).fit(files)
    expected = embedder.transform(IMAGES[:6])
    assert (embedder.transform(files) == expected).all()
    assert (embedder.transform(np.array(files)) == expected).all()
    pictures = [Image.open(file) for file in files]
    assert (embedder.transform(pictures) == expected).all()
    for picture in pictures:
        picture.close()


def test_names_of_values(run: Path) -> None:
    embedder = unmask.Embedder(run, whitened=3).set_output(transform="default").fit(IMAGES[:20])
    assert embedder.get_feature_names_out().tolist() == ["unmask0", "unmask1", "unmask2"]
    assert unmask.Embedder(run, whitened=0).fit(IMAGES[:20]).get_feature_names_out().shape == (8,)


def test_what_is_wrong(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"shape \(200, 64\) is a table of values, not images;"):
        unmask.Embedder(run).fit(IMAGES.reshape(200, 64))
    with pytest.raises(SettingsError, match=r"shape \(200, 64\) is a table of values, not images;"):
        unmask.Embedder(run).fit(torch.from_numpy(IMAGES.reshape(200, 64)))
    with pytest.raises(NotFittedError, match="call fit with training images first"):
        unmask.Embedder(run).transform(IMAGES)
    with pytest.raises(SettingsError, match='pooling is "mean" or "class", got \'max\''):
        unmask.Embedder(run).set_params(pooling="max").fit(IMAGES)
    with pytest.raises(SettingsError, match="whitening needs at least 2 training images, got 1"):
        unmask.Embedder(run).fit(IMAGES[:1])
    with pytest.raises(RunError, match=r"there is no file or folder .*nowhere"):
        unmask.Embedder(tmp_path / "nowhere").fit(IMAGES)
