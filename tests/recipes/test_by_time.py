"""Recipes for a time: what they are for each size of image and number of images, and how a batch is cut."""

import json
from dataclasses import replace

import pytest

from unmask.contracts import Size
from unmask.masking import count_visible
from unmask.objectives import MAE
from unmask.recipes import RECIPES, Recipe
from unmask.recipes.by_time import (
    BATCH,
    LEAST_STEPS,
    PEAK,
    encoders_for,
    peak,
    products,
    recipe_for,
    with_more_steps,
)
from unmask.spec import from_json, to_json


@pytest.mark.parametrize(
    ("size", "patch", "side"),
    [
        (Size(8, 8), 2, 8),
        (Size(28, 28), 4, 28),
        (Size(32, 32), 4, 32),
        (Size(64, 64), 8, 64),
        (Size(96, 130), 8, 96),
        (Size(375, 500), 16, 224),
        (Size(4000, 3000), 16, 224),
        (Size(5, 5), 2, 8),
    ],
)
def test_patches_and_crops_by_the_size_of_images(size: Size, patch: int, side: int) -> None:
    for encoder in encoders_for(size):
        recipe = recipe_for(encoder, size, 10_000)
        assert (recipe.encoder.patch_size, recipe.image_size) == (patch, Size(side, side))
        assert from_json(Recipe, json.loads(json.dumps(to_json(recipe)))) == recipe


@pytest.mark.parametrize(
    ("side", "visible"), [(8, 8), (28, 8), (32, 8), (64, 8), (96, 18), (224, 24)]
)
def test_at_least_eight_patches_stay_visible(side: int, visible: int) -> None:
    size = Size(side, side)
    recipe = recipe_for(encoders_for(size)[0], size, 1000)
    assert isinstance(recipe.objective, MAE)
    assert count_visible(recipe.objective.masking, recipe.encoder_grid()) == visible


@pytest.mark.parametrize(("images", "batch"), [(50_000, 64), (600, 64), (350, 32), (100, 16)])
def test_batches_by_the_number_of_images(images: int, batch: int) -> None:
    size = Size(32, 32)
    recipe = recipe_for(encoders_for(size)[0], size, images)
    assert recipe.batch_size == batch
    assert recipe.schedule.peak(batch) == pytest.approx(PEAK * (batch / BATCH) ** 0.5)


def test_larger_encoders_take_longer() -> None:
    size = Size(224, 224)
    costs = [products(recipe_for(encoder, size, 1000)) for encoder in encoders_for(size)]
    assert costs == sorted(costs)


def test_products_are_those_of_the_blocks() -> None:
    """By hand: 8 x 8 patches, 8 visible and a class token; encoder 4 x 128, decoder 2 x 128 on 19 of 56 hidden patches."""
    size = Size(32, 32)
    recipe = recipe_for(encoders_for(size)[0], size, 1000)
    encoder = 4 * (12 * 128**2 * 9 + 2 * 9**2 * 128)
    queries, memory = 2 * (10 * 128**2 * 19 + 2 * 19 * 9 * 128), 2 * 2 * 128 * 128 * 9
    assert products(recipe) == encoder + queries + memory


def test_products_of_a_decoder_on_all_tokens() -> None:
    """By hand: 14 x 14 patches, 49 visible and a class token; ViT-B, and a decoder of 8 blocks of 512 on 197 tokens."""
    encoder = 12 * (12 * 768**2 * 50 + 2 * 50**2 * 768)
    decoder = 8 * (12 * 512**2 * 197 + 2 * 197**2 * 512)
    assert products(RECIPES["mae-b16"].recipe) == encoder + decoder


@pytest.mark.parametrize(
    ("name", "epochs", "images", "batch", "rate"),
    [
        ("mae-ti4", 300, 50_000, 1024, 6e-4),  # 14,648 steps: nothing to cut
        ("mae-ti4", 10, 50_000, 64, 6e-4),  # its own rate is below that of the table
        ("mae-b16", 100, 1000, 64, 1e-3),
        ("mae-ti16", 400, 600, 64, 6e-4),
        ("mae-ti16", 400, 350, 32, 6e-4),
        ("mae-ti16", 400, 13, 12, PEAK * (12 / BATCH) ** 0.5),
        ("dino-ti4", 1, 600, 256, 5e-4),  # compares the images of a batch
        ("dino-ti4", 1, 100, 100, 5e-4 * 100 / 256),
    ],
)
def test_few_epochs_and_few_images_get_smaller_batches(
    name: str, epochs: float, images: int, batch: int, rate: float
) -> None:
    recipe = replace(RECIPES[name].recipe, epochs=float(epochs))
    cut = with_more_steps(recipe, images)
    assert cut.batch_size == batch
    assert cut.schedule.peak(batch) == pytest.approx(rate)
    assert replace(cut, batch_size=recipe.batch_size, schedule=recipe.schedule) == recipe


def test_a_cut_batch_has_enough_steps_or_is_the_smallest() -> None:
    for epochs in (1, 3, 10, 30, 100):
        recipe = replace(RECIPES["mae-b16"].recipe, epochs=float(epochs))
        cut = with_more_steps(recipe, 100_000)
        steps = epochs * 100_000 / cut.batch_size
        assert cut.batch_size == BATCH or steps >= LEAST_STEPS
        assert cut.batch_size == 4096 or steps < 2 * LEAST_STEPS


def test_the_rate_grows_with_the_root_of_the_batch() -> None:
    assert peak(256) == pytest.approx(2 * PEAK)
