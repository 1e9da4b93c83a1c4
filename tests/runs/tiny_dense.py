"""A segmentation with batch normalisation, and a detection, so small that a step takes milliseconds."""

from typing import Any

import torch
from rules import members
from torch import Tensor

from unmask.annotations import ClassMaps, ObjectLabels, Objects
from unmask.contracts import Batch, Part
from unmask.randomness import generator, seeded
from unmask.tasks import Segment
from unmask.tasks.average_precision import Precisions
from unmask.tasks.detect import Detect
from unmask.tasks.detections import Detections
from unmask.tasks.map_layers import BatchNorms
from unmask.tasks.upernet import UperNet

IMAGES = 8
TASK = Segment(head=UperNet(channels=4, norm=BatchNorms()), drop_path=0.3, auxiliary_weight=0.4)


def build() -> Any:
    """The module in training."""
    with seeded("weights", 0):
        names = tuple(map(str, range(members.CLASSES)))
        return TASK.build(members.tiny_encoder(), ClassMaps(names=names)).train()


def batch_of(rows: list[int]) -> Batch:
    """Some of the images of a step, with class maps that follow their first channel."""
    batch = members.batch_of(0, IMAGES)
    batch = batch._replace(annotations=batch.images[:, 0].long() % members.CLASSES)
    return batch._replace(part=Part(torch.arange(IMAGES), IMAGES)).rows(rows)


def stepped(module: Any, plain: Any, rows: list[int]) -> dict[str, list[float]]:
    """Two sums of the gradient of each parameter, and of the running averages, after a step on some of the images."""
    module(batch_of(rows), generator("cpu", "step", 0, 0)).total.backward()
    tensors: dict[str, Tensor] = {n: p.grad for n, p in plain.named_parameters() if p.requires_grad}
    tensors |= {name: tensor for name, tensor in plain.named_buffers() if "running" in name}
    return {n: [t.double().sum().item(), t.double().norm().item()] for n, t in tensors.items()}


DETECT = Detect(window=3, global_blocks=1, drop_path=0.3, channels=8, sampled=16)
DETECTED = 4  # images
_NAMES = ("disc", "box")


def detector() -> Any:
    """A detector in training."""
    with seeded("weights", 0):
        return DETECT.build(members.tiny_encoder(), ObjectLabels(names=_NAMES)).train()


def objects_of(rows: list[int]) -> Batch:
    """Some of the images of a step, with one to three boxes each."""
    batch = members.batch_of(0, DETECTED)
    side = batch.images.shape[-1]
    known = tuple(
        Objects(
            torch.tensor([[1.0 * n, 1, side / 2 + n, side - 2]] * (number % 3 + 1)),
            torch.arange(number % 3 + 1) % 2,
        )
        for n, number in enumerate(range(DETECTED))
    )
    batch = batch._replace(annotations=known, part=Part(torch.arange(DETECTED), DETECTED))
    return batch.rows(rows)


def detected(module: Any, plain: Any, rows: list[int]) -> dict[str, list[float]]:
    """Two sums of each gradient after a step on some of the images."""
    module(objects_of(rows), generator("cpu", "step", 0, 0)).total.backward()
    grads = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
    return {n: [g.double().sum().item(), g.double().norm().item()] for n, g in grads.items()}


def scored(rows: list[int]) -> Precisions:
    """Detections in some images that are right in every second one."""
    scoring = Precisions(_NAMES, masks=False)
    for row in rows:
        box = torch.tensor([[2.0, 2, 20, 20 + row]])
        found = Detections(
            box + 9 * (row % 2), torch.tensor([0.9 - row / 10]), torch.tensor([row % 2])
        )
        scoring.add((found,), (Objects(box, torch.tensor([row % 2])),))
    return scoring
