"""data2vec 2.0's settings, and the small ones that are ours, written out."""

import math

import pytest
import torch

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.data.views import RandomCrop
from unmask.masking import InverseBlockMasking
from unmask.objectives import Latent
from unmask.recipes import find_recipe
from unmask.training.optimizers import AdamW, ClipTogether


def test_latent_is_as_published() -> None:
    recipe = find_recipe("latent-b16")
    assert recipe.encoder == find_recipe("mae-b16").encoder
    assert recipe.objective == Latent(
        masking=InverseBlockMasking(ratio=0.8, adjust=0.07, side=3),
        masks=16,
        target_blocks=10,
        decoder_dim=768,
        decoder_depth=6,
        decoder_groups=16,
        noise=0.01,
        class_weight=0.01,
        first_momentum=0.9998,
        last_momentum=0.99999,
        rising_share=100_000 / 375_000,
    )
    assert recipe.optimizer == AdamW(
        beta1=0.9, beta2=0.95, weight_decay=0.05, clipping=ClipTogether(norm=4 / math.sqrt(768))
    )
    assert recipe.views == RandomCrop(smallest_share=0.2, flip_probability=0.5)
    assert recipe.schedule.peak(recipe.batch_size) == pytest.approx(1e-3)
    assert recipe.batch_size == 16 * 16
    assert recipe.image_size == Size(224, 224)
    steps = recipe.epochs * 1_281_167 / recipe.batch_size
    assert steps == pytest.approx(375_000, rel=0.002)


def test_small_latent_is_what_it_says() -> None:
    recipe, mae = find_recipe("latent-ti4"), find_recipe("mae-ti4")
    assert recipe.encoder == mae.encoder
    rows = recipe.batch_size * recipe.objective.masks
    assert rows == mae.batch_size
    assert recipe.schedule.peak(recipe.batch_size) == pytest.approx(mae.schedule.peak(rows))
    mask = recipe.objective.masking.sample(3, recipe.encoder_grid(), torch.Generator())
    assert mask.kept_index.shape == (3, 16)


@pytest.mark.parametrize(
    ("name", "width", "decoder", "depth", "groups"),
    [("latent-b16", 768, 768, 6, 16), ("latent-ti4", 192, 192, 3, 8)],
)
def test_size_of_the_decoder(name: str, width: int, decoder: int, depth: int, groups: int) -> None:
    recipe = find_recipe(name)
    with torch.device("meta"):
        statistics = Statistics(torch.zeros(3), torch.ones(3))
        model = recipe.objective.build(recipe.encoder.build(recipe.image_size, 3, statistics))
    first = (9 * width // groups + 1) * decoder
    others = (depth - 1) * (9 * decoder // groups + 1) * decoder
    count = sum(parameter.numel() for parameter in model.decoder.parameters())
    assert count == first + others + (decoder + 1) * width
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
