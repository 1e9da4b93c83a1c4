"""Detection recipes: the published numbers, and the rate of every group at named steps."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from unmask.annotations import ClassMaps, ObjectLabels
from unmask.channels import IMAGENET
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.encoders.vit import VIT_B16, VIT_H14, VIT_TI16, ViT
from unmask.recipes import MANY, choose_dense
from unmask.recipes.detect import NAMED
from unmask.tasks.detect import Detect
from unmask.training.parameter_groups import layer_groups, set_rates

PUBLISHED = {
    # recipe: depth, width, layer decay, stochastic depth, global blocks, epochs, exempt from decay
    "detect-b16": (12, 768, 0.7, 0.1, (2, 5, 8, 11), 100, True),
    "detect-l16": (24, 1024, 0.8, 0.4, (5, 11, 17, 23), 100, True),
    "detect-h16": (32, 1280, 0.9, 0.5, (7, 15, 23, 31), 75, False),
}
"""projects/ViTDet/configs/COCO/mask_rcnn_vitdet_{b,l,h}_*.py."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_vitdets(name: str) -> None:
    depth, width, _, drop_path, whole, epochs, _ = PUBLISHED[name]
    recipe = NAMED[name].recipe
    task, optimizer = recipe.task, recipe.optimizer
    assert isinstance(task, Detect)
    assert (recipe.encoder.depth, recipe.encoder.embed_dim) == (depth, width)
    assert recipe.encoder.patch_size == 16
    assert recipe.views == ScaleJitter(least=0.1, most=2.0, side="longest", flip_probability=0.5)
    assert recipe.test_views == FittedImage(side="longest")
    assert (recipe.image_size, recipe.batch_size, recipe.epochs) == ((1024, 1024), 64, epochs)
    assert (task.window, task.drop_path, task.channels, task.sampled) == (14, drop_path, 256, 512)
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == (0.9, 0.999, 0.1)
    with torch.device("meta"):
        encoder = recipe.encoder.build(recipe.image_size, 3, IMAGENET.tensors())
        model = task.build(encoder, ObjectLabels(names=tuple("abc"), masks=True))
    windows = model.windows.windows
    assert tuple(n for n, side in enumerate(windows) if side is None) == whole
    assert {side for side in windows if side} == {14}


def published(name: str, depth: int, layer_decay: float, exempt: bool) -> tuple[float, float]:
    """Scale of the learning rate and weight decay of a parameter, after detectron2's `get_vit_lr_decay_rate`.

    Its layers are 0 for embeddings, 1 to `depth` for blocks with their relative positions, and `depth + 1` for all else. B
    and L decay neither norms nor absolute positions.
    """
    layer = depth + 1
    if name.startswith(("encoder.pos_embed", "encoder.patch_embed")):
        layer = 0
    elif name.startswith("encoder.blocks.") or name.startswith("windows.positions."):
        layer = int(name.split(".")[2]) + 1
    is_norm = any(part.startswith("norm") for part in name.split("."))
    no_decay = exempt and (is_norm or name == "encoder.pos_embed")
    return layer_decay ** (depth + 1 - layer), 0.0 if no_decay else 0.1


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_and_weight_decays_of_every_parameter(name: str) -> None:
    depth, _, layer_decay, *_, exempt = PUBLISHED[name]
    recipe = NAMED[name].recipe
    assert isinstance(recipe.task, Detect)
    with torch.device("meta"):
        encoder = recipe.encoder.build(recipe.image_size, 3, IMAGENET.tensors())
        model = recipe.task.build(encoder, ObjectLabels(names=tuple("abc"), masks=True))
    optimizer: Any = recipe.optimizer
    rules = optimizer.layer_decay, optimizer.weight_decay, optimizer.exempt
    own = {
        parameter: (group["scale"], group["weight_decay"])
        for group in layer_groups(model, *rules)
        for parameter in group["params"]
    }
    trained = {n: one for n, one in model.named_parameters() if one.requires_grad}
    assert own.keys() == set(trained.values())
    for parameter_name, parameter in trained.items():
        scale, decay = published(parameter_name, depth, layer_decay, exempt)
        assert own[parameter] == (pytest.approx(scale), decay), parameter_name


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_at_named_steps(name: str) -> None:
    """Of every group, before and after each published milestone; of the first layer and the heads among them."""
    depth, _, layer_decay, *_, epochs, _ = PUBLISHED[name]
    recipe = NAMED[name].recipe
    steps = 184_375 if epochs == 100 else 184_375 * 3 // 4
    milestones = [163_889, 177_546] if epochs == 100 else [163_889 * 3 // 4, 177_546 * 3 // 4]
    warm = 250 * steps / 184_375
    expected = {
        100: 1e-4 * 100 / warm,
        round(warm) + 1: 1e-4,
        milestones[0] - 2: 1e-4,
        milestones[0] + 2: 1e-5,
        milestones[1] - 2: 1e-5,
        milestones[1] + 2: 1e-6,
        steps - 1: 1e-6,
    }
    scales = [layer_decay**n for n in range(depth + 2)]
    tokens = [torch.nn.Parameter(torch.zeros(1)) for _ in scales]
    optimizer = torch.optim.AdamW(
        [{"params": [p], "scale": s} for p, s in zip(tokens, scales, strict=True)], lr=0.0
    )
    for step, peak in expected.items():
        rate = recipe.schedule.rate(step * epochs / steps, recipe.epochs, recipe.batch_size)
        assert rate == pytest.approx(peak, rel=1e-6), step
        set_rates(optimizer, rate, step / steps)
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            assert group["lr"] == pytest.approx(peak * scale, rel=1e-6)


@pytest.mark.parametrize("name", NAMED)
def test_every_recipe_has_a_source_and_a_score(name: str) -> None:
    named = NAMED[name]
    assert len(named.source) > 3
    assert len(named.expected) > 10
    assert math.isfinite(named.recipe.schedule.peak(named.recipe.batch_size))


@pytest.mark.parametrize(
    ("encoder", "images", "name"),
    [
        (VIT_H14, MANY, "detect-h16"),
        (VIT_B16, MANY, "detect-b16"),
        (VIT_H14, MANY - 1, "detect-small"),
        (VIT_TI16, 40, "detect-mini"),
        (replace(VIT_H14, depth=31), MANY, "detect-small"),
    ],
)
def test_many_images_get_the_published_recipe_of_their_encoder(
    encoder: ViT, images: int, name: str
) -> None:
    assert choose_dense(encoder, ObjectLabels(names=("a",), masks=False), images) == name


def test_class_maps_keep_the_patches_of_weights() -> None:
    maps = ClassMaps(names=("a", "b"))
    assert choose_dense(replace(VIT_TI16, patch_size=4), maps, MANY) == "segment-ti8"
    assert choose_dense(VIT_B16, maps, MANY) == "segment-b16"
    assert choose_dense(VIT_H14, maps, MANY) == "segment-h14"
