"""Recipes of fine-tuning against the paper's tables 9 to 11 and the authors' FINETUNE.md, written out."""

from dataclasses import replace
from pathlib import Path

import pytest

from unmask.contracts import Size
from unmask.data.views import AugmentedCrop, MarginCrop, RandomCrop
from unmask.encoders import ViT
from unmask.encoders.vit import VIT_B16, VIT_H14, VIT_L16
from unmask.errors import SettingsError
from unmask.recipes import (
    RECIPES,
    TRANSFERS,
    Transfer,
    choose_scratch,
    choose_transfer,
    find_recipe,
    find_transfer,
)
from unmask.tasks.heads import MeanHead, TokenProbe
from unmask.training.optimizers import Lars, LayerwiseAdamW

# base rate, layer decay, drop path, epochs, warm-up, batch, weight decay, beta2, erasing, average
COLUMNS = {
    "finetune-b16": (5e-4, 0.65, 0.1, 100, 5, 1024, 0.05, 0.999, 0.25, 0.0),
    "finetune-l16": (1e-3, 0.75, 0.2, 50, 5, 1024, 0.05, 0.999, 0.25, 0.0),
    "finetune-h14": (1e-3, 0.75, 0.3, 50, 5, 1024, 0.05, 0.999, 0.25, 0.0),
    "finetune-b16-paper": (1e-3, 0.75, 0.1, 100, 5, 1024, 0.05, 0.999, 0.0, 0.0),
    "finetune-l16-paper": (1e-3, 0.75, 0.1, 50, 5, 1024, 0.05, 0.999, 0.0, 0.0),
    "finetune-h14-paper": (1e-3, 0.75, 0.2, 50, 5, 1024, 0.05, 0.999, 0.0, 0.0),
    "finetune-h14-448": (1e-3, 0.75, 0.2, 50, 5, 1024, 0.05, 0.999, 0.0, 0.0),
    "scratch-b16": (1e-4, 1.0, 0.1, 300, 20, 4096, 0.3, 0.95, 0.0, 0.9999),
    "scratch-l16": (1e-4, 1.0, 0.2, 200, 20, 4096, 0.3, 0.95, 0.0, 0.9999),
    "scratch-h14": (1e-4, 1.0, 0.2, 200, 20, 4096, 0.3, 0.95, 0.0, 0.9999),
}


EXPECTED = {
    "finetune-b16-paper": "83.6",  # table 3
    "finetune-l16-paper": "85.9",
    "finetune-h14-paper": "86.9",
    "finetune-h14-448": "87.8",
    "probe-b16": "68.0",  # table 12
    "probe-l16": "75.8",
    "probe-h14": "76.6",
}

PROBES = {"probe-b16": VIT_B16, "probe-l16": VIT_L16, "probe-h14": VIT_H14}


@pytest.mark.parametrize(("name", "score"), EXPECTED.items())
def test_scores_of_tables_3_and_12(name: str, score: str) -> None:
    assert TRANSFERS[name].expected.startswith(f"{score} % on ImageNet-1K")


@pytest.mark.parametrize("name", COLUMNS)
def test_tables_9_and_11(name: str) -> None:
    recipe = find_transfer(name)
    optimizer, task, views = recipe.optimizer, recipe.task, recipe.views
    assert isinstance(optimizer, LayerwiseAdamW)
    assert isinstance(views, AugmentedCrop)
    found = (
        recipe.schedule.base_lr,
        optimizer.layer_decay,
        task.drop_path,
        recipe.epochs,
        recipe.schedule.warmup_epochs,
        recipe.batch_size,
        optimizer.weight_decay,
        optimizer.beta2,
        recipe.mixing.erasing,
        task.weight_average,
    )
    assert found == COLUMNS[name]
    assert optimizer.beta1 == 0.9
    assert task.label_smoothing == 0.1
    assert (recipe.mixing.mixup, recipe.mixing.cutmix) == (0.8, 1.0)
    assert (views.magnitude, views.magnitude_std, views.smallest_share) == (9, 0.5, 0.08)
    assert recipe.test_views == MarginCrop(share=224 / 256)
    assert recipe.image_size == (Size(448, 448) if name.endswith("448") else Size(224, 224))
    assert task.head == MeanHead()
    assert task.trained_blocks == "all"
    assert recipe.schedule.min_lr == (1e-6 if name.startswith("finetune") else 0)
    encoder = {"b16": VIT_B16, "l16": VIT_L16, "h14": VIT_H14}[name.split("-")[1]]
    assert recipe.encoder == encoder


def test_fine_tuning_at_448_pixels() -> None:
    """1,024 patches, positions resampled by the published rule, and test images cropped without a margin."""
    recipe = find_transfer("finetune-h14-448")
    assert recipe.encoder_grid() == Size(32, 32)
    assert recipe.encoder.position_resampling == "bicubic"
    assert recipe.test_views.geometry(Size(600, 600), recipe.image_size).resized == Size(448, 448)


@pytest.mark.parametrize(("name", "encoder"), PROBES.items())
def test_table_10(name: str, encoder: ViT) -> None:
    recipe = find_transfer(name)
    assert recipe.encoder == encoder
    assert recipe.optimizer == Lars(momentum=0.9, trust=0.001, weight_decay=0.0)
    assert (recipe.schedule.base_lr, recipe.schedule.warmup_epochs) == (0.1, 10)
    assert (recipe.batch_size, recipe.epochs) == (16384, 90)
    assert recipe.schedule.peak(recipe.batch_size) == pytest.approx(6.4)
    assert recipe.views == RandomCrop(smallest_share=0.08, flip_probability=0.5, too_large="clip")
    assert not recipe.mixing.mixes
    assert recipe.task.head == TokenProbe()
    assert recipe.task.trained_blocks == "0"
    assert recipe.task.drop_path == recipe.task.label_smoothing == 0


@pytest.mark.parametrize("name", TRANSFERS)
def test_every_recipe_has_a_source_and_an_expected_score(name: str) -> None:
    assert len(TRANSFERS[name].source) > 3
    assert len(TRANSFERS[name].expected) > 10
    assert name not in RECIPES


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        (VIT_B16, "finetune-b16"),
        (VIT_L16, "finetune-l16"),
        (VIT_H14, "finetune-h14"),
        (ViT(patch_size=16, embed_dim=384, depth=12, num_heads=6), "finetune-b16"),
        (ViT(patch_size=14, embed_dim=1024, depth=24, num_heads=16), "finetune-l16"),
        (ViT(patch_size=4, embed_dim=192, depth=6, num_heads=3), "finetune-ti4"),
        (ViT(patch_size=2, embed_dim=8, depth=1, num_heads=2), "finetune-digits"),
    ],
)
def test_choice_by_the_encoder(encoder: ViT, name: str) -> None:
    assert choose_transfer(encoder) == name


@pytest.mark.parametrize(
    ("side", "name"), [(8, "finetune-digits"), (32, "scratch-ti4"), (256, "scratch-b16")]
)
def test_choice_from_scratch_by_the_images(side: int, name: str) -> None:
    assert choose_scratch(Size(side, side)) == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 5}, "so batch_size must be even, got 5"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"image_size": Size(30, 30)}, "cannot be divided into patches"),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(find_transfer("finetune-ti4"), **changes)


def test_names_of_the_other_kind() -> None:
    with pytest.raises(SettingsError, match="mae-b16 is a recipe for `unmask pretrain`"):
        find_transfer("mae-b16")
    with pytest.raises(SettingsError, match="finetune-b16 is a recipe for `unmask finetune`"):
        find_recipe("finetune-b16")
    with pytest.raises(SettingsError, match="did you mean 'finetune-ti4'"):
        find_transfer("finetune-t14")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from unmask.recipes.finetune import FINETUNE_TI4 as MINE\nOTHER = 3\n")
    assert find_transfer(f"{file}:MINE") == find_transfer("finetune-ti4")
    with pytest.raises(SettingsError, match="has no Transfer called 'OTHER'"):
        find_transfer(f"{file}:OTHER")
    assert isinstance(find_transfer(f"{file}:MINE"), Transfer)
