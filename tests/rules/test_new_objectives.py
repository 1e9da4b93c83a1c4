"""What asks for abilities of an objective works with one that has no more than it must: nothing reads fields of MAE's."""

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from runs import tiny

from unmask.console import plan as announced
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.masking import RandomMasking
from unmask.recipes import Recipe
from unmask.runs.plan import Plan
from unmask.runs.target import brings_target, with_tokenizer
from unmask.runs.weights import Found, recipe_for, start_from
from unmask.targets import TokenizerCodes
from unmask.traits import Hiding, Masked


@dataclass(frozen=True, kw_only=True)
class HidingAlone:
    """Hides patches, and has neither target nor decoder."""

    masking: Any = RandomMasking(ratio=0.5)


@dataclass(frozen=True, kw_only=True)
class Rebuilding(HidingAlone):
    """Hides patches and rebuilds them, with neither MAE's encoding nor its decoder."""

    target: Any = TokenizerCodes(path="tok", tokenizer=tiny.TOKENIZING.tokenizer)


OBJECTIVES = [HidingAlone(), Rebuilding()]


def with_objective(spec: Any, objective: Any) -> Any:
    """A copy of a spec with an objective that is in no union."""
    changed = copy(spec)
    object.__setattr__(changed, "objective", objective)
    return changed


def model(objective: Any) -> ModelSpec:
    spec = ModelSpec(
        format=FORMAT,
        encoder=tiny.RECIPE.encoder,
        objective=None,
        image_size=tiny.RECIPE.image_size,
        channels=3,
        statistics=tiny.IMAGENET,
        origin="test",
    )
    return with_objective(spec, objective)


def test_they_keep_the_contract() -> None:
    assert all(isinstance(objective, Hiding) for objective in OBJECTIVES)
    assert [isinstance(objective, Masked) for objective in OBJECTIVES] == [False, True]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["hiding", "rebuilding"])
def test_what_the_encoder_sees_is_said(objective: Any) -> None:
    recipe: Recipe = with_objective(tiny.RECIPE, objective)
    plan = Plan(
        encoder_parameters=1,
        decoder_parameters=1,
        kept=4,
        patches=16,
        step_seconds=1.0,
    )
    assert "4 of 16 patches of 8 pixels" in announced.visible_words(recipe, plan)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["hiding", "rebuilding"])
def test_a_recipe_is_found_for_their_weights(objective: Any) -> None:
    _, recipe, _ = recipe_for(model(objective))
    assert recipe.encoder == tiny.RECIPE.encoder


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["hiding", "rebuilding"])
def test_pretraining_starts_from_their_encoder_alone(objective: Any) -> None:
    encoder = model(None).build_encoder()
    weights = Weights(model(objective), encoder.state_dict(), {})
    start = start_from(Found(weights, "weights", "unmask"), tiny.RECIPE, tiny.IMAGENET)
    assert "an encoder without a decoder" in start.words
    assert start.weights.spec.objective is None


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["hiding", "rebuilding"])
def test_and_goes_on_with_them(objective: Any) -> None:
    mae = model(tiny.RECIPE.objective)
    encoder = mae.build_encoder()
    recipe = with_objective(tiny.RECIPE, objective)
    start = start_from(
        Found(Weights(mae, encoder.state_dict(), {}), "weights", "unmask"), recipe, tiny.IMAGENET
    )
    assert start.weights.spec.objective is None


def test_their_tokenizer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(spec: Any, **changes: Any) -> Any:  # no recipe would take them
        objective = changes.get("objective")
        return with_objective(spec, objective) if objective else replace(spec, **changes)

    monkeypatch.setattr("unmask.runs.target.replace", replaced)
    images = tiny.write_images(tmp_path / "images")
    path = tiny.write_tokenizer(tmp_path / "tok", images, tiny.TOKENIZING.tokenizer)
    objective = Rebuilding(target=TokenizerCodes(path=str(path)))
    recipe = with_tokenizer(with_objective(tiny.RECIPE, objective), 3, "uint8")
    assert recipe.objective.target.tokenizer == tiny.TOKENIZING.tokenizer
    assert brings_target(model(recipe.objective), recipe)
    assert not brings_target(model(tiny.RECIPE.objective), recipe)
