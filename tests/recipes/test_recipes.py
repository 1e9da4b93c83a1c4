"""Recipes against the paper, written out: He and others (2022), table 8, tables 1 and section 4."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unmask.channels import Statistics
from unmask.contracts import Batch, Size
from unmask.data.views import RandomCrop
from unmask.encoders import ViT
from unmask.errors import SettingsError
from unmask.masking import RandomMasking, SquareMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder, some_removed
from unmask.recipes import RECIPES, Recipe, choose_recipe, find_recipe
from unmask.recipes.fast import NAMED as FAST_NAMED
from unmask.runs.run import parameter_count
from unmask.targets import NormalizedPixels
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine
from unmask.traits import Masked

SHAPES = {  # width, depth, heads, patch (section 4; Dosovitskiy and others 2021, table 1)
    "mae-b16": (768, 12, 12, 16),
    "mae-l16": (1024, 24, 16, 16),
    "mae-h14": (1280, 32, 16, 14),
}


@pytest.mark.parametrize("name", SHAPES)
def test_table_8(name: str) -> None:
    recipe = find_recipe(name)
    assert isinstance(recipe.optimizer, AdamW)  # optimizer
    assert recipe.schedule.base_lr == 1.5e-4  # base learning rate
    assert recipe.optimizer.weight_decay == 0.05  # weight decay
    assert recipe.optimizer.beta1 == 0.9  # optimizer momentum
    assert recipe.optimizer.beta2 == 0.95
    assert recipe.batch_size == 4096  # batch size
    assert isinstance(recipe.schedule, WarmupCosine)  # learning rate schedule: cosine decay
    assert recipe.schedule.min_lr == 0
    assert recipe.schedule.warmup_epochs == 40  # warmup epochs
    assert isinstance(recipe.views, RandomCrop)  # augmentation: RandomResizedCrop
    assert recipe.views.smallest_share == 0.2
    assert recipe.views.flip_probability == 0.5


@pytest.mark.parametrize("name", SHAPES)
def test_linear_scaling_of_the_rate(name: str) -> None:
    """lr = base_lr x batch size / 256 (appendix A.1): 2.4e-3 for 4096 images."""
    recipe = find_recipe(name)
    assert recipe.schedule.peak(recipe.batch_size) == pytest.approx(2.4e-3, rel=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_model_and_training_of_the_paper(name: str) -> None:
    recipe = find_recipe(name)
    width, depth, heads, patch = SHAPES[name]
    assert recipe.encoder == ViT(
        embed_dim=width, depth=depth, num_heads=heads, patch_size=patch, mlp_ratio=4.0
    )
    assert recipe.objective == MAE(
        masking=RandomMasking(ratio=0.75),  # figure 5
        target=NormalizedPixels(),  # table 1d
        decoder=SelfAttentionDecoder(  # tables 1a and 1b
            embed_dim=512, depth=8, num_heads=16, mlp_ratio=4.0
        ),
    )
    assert recipe.image_size == (224, 224)
    assert recipe.epochs == 800  # section 4


def test_sizes_of_deit() -> None:
    """DeiT, table 1: Ti is 192 wide with 3 heads, S 384 with 6, both 12 deep."""
    tiny, small = find_recipe("mae-ti16").encoder, find_recipe("mae-s16").encoder
    assert (tiny.embed_dim, tiny.depth, tiny.num_heads, tiny.patch_size) == (192, 12, 3, 16)
    assert (small.embed_dim, small.depth, small.num_heads, small.patch_size) == (384, 12, 6, 16)
    at_32 = find_recipe("mae-ti4")
    assert (at_32.encoder.embed_dim, at_32.encoder.depth, at_32.encoder.num_heads) == (192, 12, 3)
    assert (at_32.encoder.patch_size, at_32.image_size) == (4, (32, 32))
    digits = find_recipe("mae-digits")
    assert (digits.encoder.patch_size, digits.image_size) == (2, (8, 8))


COUNTS = {"mae-b16": (85.8, 26.0), "mae-l16": (303.3, 26.1), "mae-h14": (630.8, 26.2)}
"""Millions of parameters of the published encoders, position tables counted, and of their decoders of 8
blocks 512 wide, the fixed table not counted."""


def on_meta(recipe: Recipe) -> MaskedAutoencoder:
    """The whole model without its numbers."""
    with torch.device("meta"):
        statistics = Statistics(torch.zeros(3), torch.ones(3))
        return recipe.objective.build(recipe.encoder.build(recipe.image_size, 3, statistics))


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    model = on_meta(find_recipe(name))
    encoder = parameter_count(model.encoder)
    decoder = sum(p.numel() for p in model.decoder.parameters() if p.requires_grad)
    assert (round(encoder / 1e6, 1), round(decoder / 1e6, 1)) == COUNTS[name]


@pytest.mark.parametrize("name", SHAPES)
def test_parameter_counts_by_formula(name: str) -> None:
    """Patch projection, class token, positions, blocks, last norm; counted by hand."""
    width, depth, _, patch = SHAPES[name]
    tokens = (224 // patch) ** 2 + 1
    values = 3 * patch**2

    def blocks(count: int, d: int) -> int:
        attention, mlp, norms = 4 * d * d + 4 * d, 8 * d * d + 5 * d, 4 * d
        return count * (attention + mlp + norms) + 2 * d

    model = on_meta(find_recipe(name))
    encoder = (values + 1) * width + width + tokens * width + blocks(depth, width)
    assert parameter_count(model.encoder) == encoder
    decoder = (width + 1) * 512 + 512 + tokens * 512 + blocks(8, 512) + (512 + 1) * values
    assert parameter_count(model.decoder) == decoder


FAST = [name for name in FAST_NAMED if name.endswith("4")]


@pytest.mark.parametrize("name", FAST)
def test_every_small_fast_recipe_takes_a_step(name: str) -> None:
    """A few images, its own optimizer: the loss is finite, and so is every weight after it."""
    recipe = find_recipe(name)
    statistics = Statistics(torch.full((3,), 0.5), torch.full((3,), 0.25))
    encoder = recipe.encoder.build(recipe.image_size, 3, statistics)
    objective = recipe.objective.build(encoder)
    optimizer = recipe.optimizer.build(objective)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, 3, *recipe.image_size), generator=random, dtype=torch.uint8)
    loss = objective(Batch((images,), torch.zeros(3), torch.arange(3), 0), random).total
    assert 0.5 < loss < 5  # normalised patches, so a guess of nothing scores 0.98
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    before = objective.decoder.pred.weight.clone()
    optimizer.step()
    assert not before.equal(objective.decoder.pred.weight)
    assert all(bool(p.isfinite().all()) for p in objective.parameters())


def test_fast_recipes_are_as_published() -> None:
    """CrossMAE: 12 blocks 512 wide, 49 of 196 patches rebuilt, the rate scaled by 49 / 147."""
    fast = find_recipe("fast-b16")
    assert fast.objective.decoder == CrossAttentionDecoder(depth=12, embed_dim=512, num_heads=16)
    mask = fast.objective.masking.sample(2, fast.encoder_grid(), torch.Generator())
    assert some_removed(mask, fast.objective.predicted).removed_index.shape == (2, 49)
    assert fast.schedule.base_lr == pytest.approx(1.5e-4 * 49 / 147)
    assert fast.encoder == find_recipe("mae-b16").encoder


def test_dense_recipe_follows_the_notes_on_pixio() -> None:
    dense = find_recipe("dense-b16")
    assert dense.encoder.class_tokens == 4
    assert dense.image_size == (256, 256)
    assert dense.objective.masking == SquareMasking(masking=RandomMasking(ratio=0.75), side=2)
    assert (dense.objective.decoder.embed_dim, dense.objective.decoder.depth) == (512, 16)
    mask = dense.objective.masking.sample(1, dense.encoder_grid(), torch.Generator())
    assert mask.kept_index.shape == (1, 64)  # a quarter of 256
    with pytest.raises(SettingsError, match=r"256 x 224 \(--image-size 256x224\)"):
        changed("dense-b16", image_size=Size(240, 224))


def test_partition_recipe_shows_as_many_masks_at_the_same_rate() -> None:
    one, four = find_recipe("mae-b16"), find_recipe("partition-b16")
    assert four.batch_size * 4 == one.batch_size
    assert four.epochs * 4 == one.epochs
    assert four.schedule.peak(four.batch_size) == one.schedule.peak(one.batch_size)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built_and_masked(name: str) -> None:
    recipe = find_recipe(name)
    on_meta(recipe)
    grid = recipe.encoder_grid()
    if not isinstance(recipe.objective, Masked):
        return
    mask = recipe.objective.masking.sample(2, grid, torch.Generator().manual_seed(0))
    assert mask.removed.shape == (len(mask.image), grid.height * grid.width)
    assert mask.image.unique().tolist() == [0, 1]
    assert recipe.schedule.warmup_epochs < recipe.epochs


@pytest.mark.parametrize(
    ("size", "images", "name"),
    [
        (Size(8, 8), 1797, "mae-digits"),
        (Size(12, 900), 10**6, "mae-digits"),
        (Size(13, 13), 10, "mae-ti4"),
        (Size(64, 64), 10**6, "mae-ti4"),
        (Size(65, 65), 19_999, "mae-ti16"),
        (Size(480, 640), 500, "mae-ti16"),
        (Size(480, 640), 20_000, "mae-s16"),
        (Size(480, 640), 199_999, "mae-s16"),
        (Size(480, 640), 200_000, "mae-b16"),
    ],
)
def test_choice_from_size_and_count(size: Size, images: int, name: str) -> None:
    chosen, reason = choose_recipe(size, images)
    assert chosen == name
    assert f"{images:,}" in reason or str(size.height) in reason


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("mae-b61", "mae-b16"), ("mae-digit", "mae-digits"), ("MAE-L16", ""), ("mae_h14", "mae-h14")],
)
def test_misspelt_name(wrong: str, right: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown recipe '{wrong}'") as caught:
        find_recipe(wrong)
    if right:
        assert f"did you mean '{right}'?" in str(caught.value)
    assert all(name in str(caught.value) for name in RECIPES)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from unmask.recipes import find_recipe\n"
        "LONG = replace(find_recipe('mae-digits'), epochs=1000.0)\n"
        "NUMBER = 3\n"
    )
    return file


def test_recipe_from_a_file(own: Path) -> None:
    assert find_recipe(f"{own}:LONG").epochs == 1000
    assert find_recipe(f"{own}:LONG").encoder == find_recipe("mae-digits").encoder


@pytest.mark.parametrize("wrong", ["SHORT", "NUMBER", ""])
def test_missing_object_in_a_file(own: Path, wrong: str) -> None:
    with pytest.raises(SettingsError, match=rf"no Recipe called '{wrong}'; it has \['LONG'\]"):
        find_recipe(f"{own}:{wrong}")


@pytest.mark.parametrize("wrong", ["gone.py:LONG", "mine.py", ":LONG.py"])
def test_missing_file(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"is not a recipe: write \./FILE\.py:NAME"):
        find_recipe(wrong)


def test_a_recipe_checks_itself() -> None:
    with pytest.raises(SettingsError, match="batch_size must be at least 1, got 0"):
        changed("mae-b16", batch_size=0)
    with pytest.raises(SettingsError, match=r"epochs must be above 0.*got -1"):
        changed("mae-b16", epochs=-1.0)
    with pytest.raises(SettingsError, match="nearest size that works is 208 x 224"):
        changed("mae-b16", image_size=Size(209, 224))


def changed(name: str, **fields: object) -> Recipe:
    return replace(find_recipe(name), **fields)
