"""AIM's settings on the usual encoders, written out."""

import pytest

from unmask.data.views import RandomCrop
from unmask.recipes import RECIPES
from unmask.targets import NormalizedPixels
from unmask.training.optimizers import AdamW, ClipTogether


def test_aim_s_settings() -> None:
    recipe = RECIPES["aim-b16"].recipe
    assert recipe.encoder == RECIPES["mae-b16"].recipe.encoder
    assert recipe.schedule.peak(4096) == pytest.approx(1e-3)
    assert recipe.schedule.warmup_epochs / recipe.epochs == pytest.approx(31_250 / 500_000)
    assert recipe.optimizer == AdamW(
        beta1=0.9, beta2=0.95, weight_decay=0.05, clipping=ClipTogether(norm=1.0)
    )
    assert recipe.views == RandomCrop(smallest_share=0.4)
    assert recipe.objective.target == NormalizedPixels()
    assert recipe.objective.head_dim / recipe.encoder.embed_dim == pytest.approx(2048 / 1536)
    assert recipe.objective.head_depth == 12
