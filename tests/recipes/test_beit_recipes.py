"""BEiT and SimMIM: published numbers, what is hidden and scored, and what the encoder sees."""

from dataclasses import replace

import pytest
import torch
from reference import problems

from unmask.encoders.vit import BeitBlocks
from unmask.errors import SettingsError
from unmask.objectives import MAE
from unmask.objectives.decoders import LinearDecoder
from unmask.objectives.mae import Replaced, Visible
from unmask.recipes import RECIPES, Recipe
from unmask.targets import AbsolutePixels, KMeansTokens
from unmask.training.optimizers import AdamW, ClipTogether


def recipe_of(name: str) -> Recipe:
    return RECIPES[name].recipe


@pytest.mark.parametrize(("name", "scale"), [("beit-b16", 0.1), ("beit-l16", 1e-5)])
def test_beit_as_published(name: str, scale: float) -> None:
    recipe = recipe_of(name)
    assert recipe.encoder.blocks == BeitBlocks(layer_scale=scale)
    clipping = ClipTogether(norm=3.0)
    assert recipe.optimizer == AdamW(beta1=0.9, beta2=0.98, weight_decay=0.05, clipping=clipping)
    assert recipe.schedule.peak(recipe.batch_size) == pytest.approx(1.5e-3)
    assert recipe.schedule.min_lr == 1e-5
    assert (recipe.batch_size, recipe.epochs, recipe.schedule.warmup_epochs) == (2048, 800, 10)
    assert recipe.objective.target == KMeansTokens(codes=8192)
    mask = recipe.objective.masking.sample(2, recipe.encoder_grid(), problems.random(0))
    assert mask.removed.sum(1).tolist() == [75, 75]  # of 196


def test_simmim_as_published() -> None:
    recipe = recipe_of("simmim-b16")
    assert recipe.encoder == recipe_of("beit-b16").encoder
    clipping = ClipTogether(norm=5.0)
    assert recipe.optimizer == AdamW(beta1=0.9, beta2=0.999, weight_decay=0.05, clipping=clipping)
    assert recipe.schedule.peak(512) == pytest.approx(1e-4)
    mask = recipe.objective.masking.sample(2, recipe.encoder_grid(), problems.random(0))
    assert mask.removed.sum(1).tolist() == [120, 120]  # 30 of 49 squares of 4 patches
    squares = mask.removed.view(2, 7, 2, 7, 2)
    assert (squares == squares[:, :, :1, :, :1]).all()


@pytest.mark.parametrize("name", ["beit-ti4", "simmim-ti4"])
def test_kept_tokens_depend_on_the_mask_token_and_hidden_pixels_on_nothing(name: str) -> None:
    recipe = recipe_of(name)
    recipe = replace(recipe, encoder=replace(recipe.encoder, depth=2))
    torch.manual_seed(0)
    model = problems.of_recipe(recipe)
    images = torch.randint(256, (2, 3, 32, 32), generator=problems.random(1), dtype=torch.uint8)
    mask = problems.mask_of(model, images, problems.random(2))
    before = model.encode(images, mask)
    alone = model.encoder.encode_visible(images, mask).patches
    model.encoding.mask_token.data *= -50.0
    after = model.encode(images, mask)
    kept = mask.kept_index[..., None].expand(-1, -1, 192)
    moved = (after.patches - before.patches).gather(1, kept).abs().amax(-1)
    assert (moved > 1e-4).all()
    assert model.encoder.encode_visible(images, mask).patches.equal(alone)


def test_simmim_scores_the_mean_absolute_error_of_hidden_pixels() -> None:
    spec = MAE(target=AbsolutePixels(), encoding=Replaced(), decoder=LinearDecoder())
    torch.manual_seed(0)
    model = spec.build(problems.build_encoder())
    images = problems.pictures(problems.Problem())
    mask = problems.mask_of(model, images, problems.random(2))
    guesses = model.predict_all(images, mask)
    pixels = problems.normalized(images, 3)
    total, count = 0.0, 0
    for image in range(2):
        for patch in mask.removed_index[image].tolist():
            row, column = divmod(patch, 4)
            for y in range(4):
                for x in range(4):
                    for channel in range(3):
                        guess = guesses[image, patch, (y * 4 + x) * 3 + channel].item()
                        truth = pixels[image, channel, row * 4 + y, column * 4 + x].item()
                        total += abs(guess - truth)
                        count += 1
    assert model.loss(images, mask).item() == pytest.approx(total / count, rel=1e-5)


def test_a_linear_layer_cannot_guess_what_the_encoder_gives_no_token_of() -> None:
    with pytest.raises(SettingsError, match=r"linear decoder needs a token.*encoding:replaced"):
        MAE(encoding=Visible(), decoder=LinearDecoder())
