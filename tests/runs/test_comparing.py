"""What follows a pretraining that rebuilds nothing: its encoder goes on, and a picture is refused kindly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rules.members import MEMBERS, suited
from runs import tiny

from unmask import load
from unmask.errors import RunError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.weights import find_weights, recipe_for, start_from
from unmask.training.checkpoint import COMPANIONS


@pytest.fixture(scope="module", params=["dino", "moco3", "latent"])
def finished(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunFolder]:
    root = tmp_path_factory.mktemp("comparing")
    images = tiny.write_images(root / "images")
    parts = {"objective": MEMBERS["objective"][request.param], **suited(request.param)}
    recipe = replace(tiny.RECIPE, schedule=replace(tiny.RECIPE.schedule, base_lr=0.01), **parts)
    return request.param, tiny.finished_run(root / "run", images, recipe=recipe)


def test_the_encoder_is_the_one_that_the_method_gives_away(finished: tuple[str, RunFolder]) -> None:
    kind, folder = finished
    saved = tiny.newest(folder)
    found = find_weights(folder.root).weights
    student = saved.read("model")["encoder.cls_token"]
    teacher = next(v for k, v in saved.read(COMPANIONS).items() if k.endswith(".cls_token"))
    assert not student.equal(teacher)
    assert found.encoder["cls_token"].equal(teacher if kind == "dino" else student)
    assert not found.decoder
    assert found.spec.objective is None


def test_it_embeds_and_says_that_it_rebuilds_nothing(finished: tuple[str, RunFolder]) -> None:
    kind, folder = finished
    model = load(folder.root)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert model.embed(images).mean.isfinite().all()
    why = (
        "predicts latents of hidden patches, not pixels"
        if kind == "latent"
        else "hides and rebuilds nothing"
    )
    with pytest.raises(RunError, match=f"was pretrained with {kind}, which {why}"):
        model.reconstruct(images[0])


def test_a_run_of_aim_says_what_it_has_not_learnt(tmp_path: Path) -> None:
    images = tiny.write_images(tmp_path / "images")
    recipe = replace(tiny.RECIPE, objective=MEMBERS["objective"]["aim"], **suited("aim"))
    model = load(tiny.finished_run(tmp_path / "run", images, recipe=recipe).root)
    with pytest.raises(RunError, match="pretrained with aim, which guesses each patch from those"):
        model.reconstruct(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_another_objective_may_start_from_it(finished: tuple[str, RunFolder]) -> None:
    found = find_weights(finished[1].root)
    _, chosen, _ = recipe_for(found.weights.spec)
    assert chosen.encoder == tiny.RECIPE.encoder
    run = Run.read(finished[1], "pretrain")
    start = start_from(found, tiny.RECIPE, run.statistics)
    assert "an encoder without a decoder" in start.words


def test_its_model_file_is_read_as_an_encoder(finished: tuple[str, RunFolder]) -> None:
    path: Path = tiny.newest(finished[1]).folder / "model.safetensors"
    found = find_weights(path)
    assert not found.weights.decoder
    assert "only the encoder is used after pretraining" in found.weights.notes[0]
