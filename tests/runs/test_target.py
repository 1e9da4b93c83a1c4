"""Targets fitted before the first step, once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import tiny

from unmask.recipes import Recipe
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.targets import PrincipalComponents
from unmask.targets.pca import ComponentTarget

RECIPE = replace(
    tiny.RECIPE, objective=replace(tiny.RECIPE.objective, target=PrincipalComponents(share=0.25))
)


@pytest.fixture(autouse=True)
def _fit_to_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand images, each many times, are as good as ten thousand for what is asked here."""
    monkeypatch.setattr("unmask.runs.target._MOST_IMAGES", 1024)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("fitting") / "images")


def basis_of(folder: RunFolder) -> torch.Tensor:
    return tiny.newest(folder).read("model")["target.basis"]


def trained(root: Path, images: Path, recipe: Recipe = RECIPE) -> RunFolder:
    folder = tiny.begin(root, images, recipe=recipe)
    tiny.finish(folder)
    return folder


@pytest.mark.slow
def test_the_basis_is_that_of_the_training_images(images: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", images)
    basis = basis_of(folder)
    assert basis.shape == (3, 12)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), atol=1e-5, rtol=0)
    again = trained(tmp_path / "again", images)
    assert basis_of(again).equal(basis)


def test_resuming_never_fits_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.begin(tmp_path / "run", images, recipe=RECIPE)
    tiny.one_step(folder)
    before = basis_of(folder)
    monkeypatch.setattr(ComponentTarget, "fit", lambda *_: pytest.fail("fitted again"))
    tiny.finish(folder)
    assert basis_of(folder).equal(before)


@pytest.mark.slow
def test_a_decoder_of_another_target_is_left_behind(images: Path, tmp_path: Path) -> None:
    pixels = trained(tmp_path / "pixels", images, tiny.RECIPE)
    folder = tiny.begin_from(tmp_path / "run", images, pixels.root, recipe=RECIPE)
    assert "only the encoder, because the recipe has another decoder" in (
        Run.read(folder, "pretrain").init or ""
    )
    assert tiny.newest(folder).info.step == 0
    torch.testing.assert_close(
        basis_of(folder), basis_of(trained(tmp_path / "other", images)), atol=1e-6, rtol=0
    )


def test_the_same_target_keeps_its_fit(images: Path, tmp_path: Path) -> None:
    first = trained(tmp_path / "first", images)
    folder = tiny.begin_from(tmp_path / "run", images, first.root, recipe=RECIPE, seed=3)
    assert "encoder and decoder" in (Run.read(folder, "pretrain").init or "")
    assert basis_of(folder).equal(basis_of(first))
