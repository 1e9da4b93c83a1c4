"""Segmentation from training to the score: on pictures whose classes follow their colours."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from reference.problems import random
from reference.sources import Annotated
from torch import Tensor
from torch.nn import functional as F

from unmask.annotations import ClassMaps
from unmask.contracts import Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.labelled import Subset
from unmask.data.loader import Wanted
from unmask.data.mixing import UNMIXED
from unmask.data.order import samples
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.data.statistics import IMAGENET
from unmask.encoders import ViT
from unmask.recipes.finetune import Transfer
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.plan import trial
from unmask.tasks import Segment
from unmask.tasks.class_maps_score import MeanIoU
from unmask.tasks.map_layers import BatchNorms, LayerNorms
from unmask.tasks.upernet import UperNet
from unmask.training.hardware import Hardware
from unmask.training.loop import Planned, train
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

KIND = ClassMaps(names=("red", "green", "blue"), ignored=9)
RECIPE = Transfer(
    encoder=ViT(patch_size=4, embed_dim=16, depth=2, num_heads=2),
    task=Segment(head=UperNet(channels=8, dropout=0.0)),
    views=ScaleJitter(least=0.5, most=1.5, side="shortest"),
    test_views=FittedImage(side="shortest"),
    mixing=UNMIXED,
    optimizer=AdamW(beta2=0.99),
    schedule=WarmupCosine(base_lr=1.0, warmup_epochs=1),
    image_size=Size(16, 16),
    batch_size=8,
    epochs=10,
)
HARDWARE = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=8)


def coloured(count: int, seed: int) -> Annotated:
    """Pictures of several sizes in two colours, the borders of which are ignored."""
    generator = random(seed)
    images: list[Tensor] = []
    maps: list[Tensor] = []
    for number in range(count):
        height, width = 20 + number % 3, 30 + number % 5
        first, second = torch.randperm(3, generator=generator)[:2].tolist()
        border = int(torch.randint(8, width - 8, (), generator=generator))
        classes = torch.full((height, width), first)
        classes[:, border:] = second
        noise = torch.randint(0, 60, (3, height, width), generator=generator)
        images.append((F.one_hot(classes, 3).permute(2, 0, 1) * 180 + noise).to(torch.uint8))
        classes[:, border] = 9
        maps.append(classes)
    return Annotated(images, KIND, maps)


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    """Trained for 48 steps on 40 pictures."""
    job = Finetune(recipe=RECIPE, annotations=KIND, init=None)
    torch.manual_seed(0)
    encoder = RECIPE.encoder.build(RECIPE.image_size, 3, IMAGENET.tensors())
    module = RECIPE.task.build(encoder, KIND)
    feed = CpuFeed(coloured(40, 0), RECIPE.views, RECIPE.image_size, 0)

    def batches() -> Any:
        for step in range(48):
            keys = list(samples(step, 8, 40, 0))
            yield feed.load(Wanted(keys, keys[0][0], RECIPE.image_size), [])

    course = Planned(48, lambda step: 1e-2 * (1 - step / 48))
    for report in train(
        module.train(),
        batches(),
        RECIPE.optimizer.build(module),
        course,
        first_step=0,
        seed=0,
        device=torch.device("cpu"),
        precision="float32",
        micro_batch=8,
    ):
        assert report.loss.isfinite()
    return Tuned(module, job, IMAGENET)


def test_classes_are_learned_and_scored_in_the_pictures_own_frame(tuned: Tuned) -> None:
    """On pictures wider than a window, at a size that the network never saw."""
    test = coloured(9, 1)
    score = tuned.score(test, HARDWARE).score
    assert isinstance(score, MeanIoU)
    assert score.mean_iou > 0.9
    assert score.chance < 0.3
    assert score.images == 9
    assert score.pixels == sum(int((known != 9).sum()) for known in test.known)


def test_results_name_every_class(tuned: Tuned) -> None:
    result = tuned.score(coloured(3, 2), HARDWARE).result
    assert [one["name"] for one in result["classes"]] == ["red", "green", "blue"]
    assert result["left_out"] == 0
    assert result["mean_iou"] > 0.8


def test_processes_that_share_the_pictures_find_the_same_score(tuned: Tuned) -> None:
    test, task = coloured(9, 1), RECIPE.task
    parts = []
    for rank in range(2):
        share = Subset(test, np.arange(rank, 9, 2))
        scoring = task.scoring(KIND)
        for outputs, truth, _ in tuned.outputs(share, HARDWARE, []):
            scoring.add(outputs, truth)
        parts.append(scoring)
    assert task.scoring(KIND).merged(parts).result() == tuned.score(test, HARDWARE).score


@pytest.mark.parametrize("norm", [LayerNorms(), BatchNorms()])
def test_the_cost_of_a_step_is_measured_and_nothing_changes(norm: Any) -> None:
    """With trials of a single image, whose pooled maps have one value for each channel; running averages stay too."""
    task = replace(RECIPE.task, head=UperNet(channels=8, norm=norm), auxiliary_weight=0.4)
    recipe = replace(RECIPE, task=task)
    module = task.build(RECIPE.encoder.build(RECIPE.image_size, 3, IMAGENET.tensors()), KIND)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    cost = trial(module, recipe, coloured(6, 0), HARDWARE)
    assert cost.bytes_per_image > 0
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
