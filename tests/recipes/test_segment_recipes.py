"""Recipes for segmentation: published learning rates of every parameter, and modules that can be built."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import problems

from unmask.annotations import ClassMaps
from unmask.data.mixing import Mixing
from unmask.encoders.vit import ViT
from unmask.errors import SettingsError
from unmask.recipes.dense_words import protocol_words
from unmask.recipes.finetune import FINETUNE_B16, Transfer
from unmask.recipes.segment import NAMED, SEGMENT_B16, SEGMENT_L16
from unmask.runs.plan import check_group
from unmask.spec import from_json, to_json
from unmask.tasks.map_layers import BatchNorms, JointBatchNorm
from unmask.tasks.segment import Segment, Segmenter
from unmask.tasks.upernet import UperNet
from unmask.training.parameter_groups import set_rates

ADE20K = 20_210
MAPS = ClassMaps(names=("a", "b", "c"))


def narrow(recipe: Transfer) -> Any:
    """The module with as many blocks as the recipe's, but few channels."""
    small = replace(recipe.encoder, embed_dim=8, num_heads=2, mlp_ratio=1.0)
    task = recipe.task
    assert isinstance(task, Segment)
    if isinstance(task.head, UperNet):
        task = replace(task, head=replace(task.head, channels=4))
    encoder = small.build(recipe.image_size, 3, problems.statistics(3))
    return task.build(encoder, MAPS)


def published_rate(name: str, iteration: int, depth: int, decay: float) -> float:
    """mmsegmentation: layers of `LearningRateDecayOptimizerConstructor` for a ViT, and a linear schedule with warm-up."""
    layers = depth + 2
    layer = layers - 1  # neck and heads
    if name.startswith(("encoder.cls_token", "encoder.pos_embed", "encoder.patch_embed")):
        layer = 0
    elif name.startswith("encoder.blocks."):
        layer = int(name.split(".")[2]) + 1
    rate = 1e-4 * decay ** (layers - layer - 1)
    return rate * (iteration / 1500 if iteration < 1500 else 1 - iteration / 160_000)


@pytest.mark.parametrize("iteration", [0, 750, 1500, 40_000, 159_999])
@pytest.mark.parametrize(
    ("recipe", "depth"), [(SEGMENT_B16, 12), (SEGMENT_L16, 24)], ids=["B", "L"]
)
def test_learning_rates_of_every_parameter(recipe: Transfer, depth: int, iteration: int) -> None:
    module = narrow(recipe)
    optimizer = recipe.optimizer.build(module)
    epoch = iteration * recipe.batch_size / ADE20K
    rate = recipe.schedule.rate(epoch, recipe.epochs, recipe.batch_size)
    set_rates(optimizer, rate, iteration / 160_000)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    seen = set[str]()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            expected = published_rate(name, iteration, depth, 0.65)
            assert group["lr"] == pytest.approx(expected, rel=1e-6), name
            exempt = parameter.ndim == 1 or name in ("encoder.cls_token", "encoder.pos_embed")
            assert group["weight_decay"] == (0.0 if exempt else 0.05), name
    assert seen == {name for name, one in module.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("name", NAMED)
def test_every_recipe_builds_a_module_and_goes_to_json(name: str) -> None:
    recipe = NAMED[name].recipe
    assert from_json(Transfer, to_json(recipe)) == recipe
    module = narrow(recipe)
    assert isinstance(module, Segmenter)
    assert module.window == recipe.image_size
    assert len(module.blocks) in (1, 4)
    frozen = all(not one.requires_grad for one in module.encoder.parameters())
    assert frozen == ("pixio" in name or "dinov3" in name)


@pytest.mark.parametrize("name", NAMED)
def test_published_recipes_normalise_over_batches_and_ours_do_not(name: str) -> None:
    task = NAMED[name].recipe.task
    assert isinstance(task, Segment)
    published = "ours" not in NAMED[name].source or name == "segment-h14"
    assert isinstance(task.head.norm, BatchNorms) == published
    assert task.least_images == (4 if published else 1)
    norms = [one for one in narrow(NAMED[name].recipe).modules() if isinstance(one, JointBatchNorm)]
    assert bool(norms) == published


@pytest.mark.parametrize(
    ("micro_batch", "part", "processes", "refused"),
    [(2, 16, 1, True), (4, 16, 1, False), (2, 8, 2, False), (5, 16, 1, True), (1, 2, 2, True)],
)
def test_groups_of_too_few_images_are_refused(
    micro_batch: int, part: int, processes: int, refused: bool
) -> None:
    """A last micro-batch of one image included (16 in fives)."""
    module = narrow(NAMED["pixio-linear-b16"].recipe)
    if not refused:
        check_group(module, micro_batch, part, processes)
        return
    with pytest.raises(SettingsError, match="needs at least 4 images at a time, and a micro-batch"):
        check_group(module, micro_batch, part, processes)


def test_layer_norms_take_any_group() -> None:
    check_group(narrow(NAMED["segment-ti8"].recipe), 1, 1, 1)
    check_group(torch.nn.Identity(), 1, 1, 1)


def test_images_are_never_mixed() -> None:
    with pytest.raises(SettingsError, match="cannot follow mixing"):
        replace(SEGMENT_B16, mixing=Mixing(mixup=0.8))


def test_encoders_of_other_depths_take_quarters() -> None:
    recipe = NAMED["segment-s16"].recipe
    deep = replace(recipe, encoder=ViT(embed_dim=8, depth=8, num_heads=2))
    assert narrow(deep).blocks == (2, 4, 6, 8)
    with pytest.raises(SettingsError, match="taps must end with the last block"):
        replace(SEGMENT_B16, encoder=ViT(embed_dim=8, depth=8, num_heads=2))


def test_the_protocol_is_said_in_words() -> None:
    assert protocol_words(SEGMENT_B16, 255, 0) == (
        "crop 512 x 512, fitted-image, windows every 341 x 341 pixels, mean of scores, maps as found and scored at the "
        "picture's own size, ignored 255; head upernet on blocks 4, 6, 8, 12, norm batch, trained blocks all; "
        "layerwise-adamw, rate 0.0001, batch 16, 126.7 epochs; seed 0"
    )
    words = protocol_words(NAMED["pixio-linear-b16"].recipe, 0, 3)
    assert "mean of probabilities" in words
    assert (
        "head linear on the final norm, norm batch, trained blocks 0; adamw, rate 0.0002" in words
    )
    with pytest.raises(SettingsError, match="only recipes for segmentation"):
        protocol_words(FINETUNE_B16, 255, 0)
