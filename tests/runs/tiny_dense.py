"""A segmentation with batch normalisation so small that a step takes milliseconds."""

from typing import Any

import torch
from rules import members
from torch import Tensor

from unmask.annotations import ClassMaps
from unmask.contracts import Batch, Part
from unmask.randomness import generator, seeded
from unmask.tasks import Segment
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
