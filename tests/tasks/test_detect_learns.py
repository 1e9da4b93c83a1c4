"""A detector learns a few drawn scenes by heart: boxes and masks of discs and rectangles on noise."""

import pytest
import torch
from reference.problems import batch_of, random, statistics
from torch import Tensor

from unmask.annotations import ObjectLabels, Objects
from unmask.contracts import Size
from unmask.data.geometry import boxes_around
from unmask.encoders.vit import ViT
from unmask.tasks.detect import Detect, Detector
from unmask.tasks.detection_scores import DetectionScore
from unmask.training.loop import Planned, train
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

KIND = ObjectLabels(names=("disc", "rectangle"), masks=True)
SIDE = 128


def scene(number: int) -> tuple[Tensor, Objects]:
    """Noise with two or three objects in a colour of their own; later ones lie on earlier ones."""
    draw = random(number)
    picture = torch.rand(3, SIDE, SIDE, generator=draw) * 0.4
    y, x = torch.arange(SIDE)[:, None] + 0.5, torch.arange(SIDE)[None] + 0.5
    masks, classes = [], []
    for corner in torch.randperm(4, generator=draw)[: 2 + number % 2].tolist():
        width, height = (torch.rand(2, generator=draw) * 26 + 18).tolist()
        middle = torch.rand(2, generator=draw) * 16 + 24
        left, top = middle[0] + 64 * (corner % 2), middle[1] + 64 * (corner // 2)
        kind = int(torch.randint(2, (), generator=draw))
        across, down = (x - left).abs() / (width / 2), (y - top).abs() / (height / 2)
        mask = (
            (across.square() + down.square() <= 1)
            if kind == 0
            else torch.maximum(across, down) <= 1
        )
        colour = torch.rand(3, generator=draw) * 0.5 + 0.5
        picture = torch.where(mask, colour[:, None, None], picture)
        masks = [other & ~mask for other in masks] + [mask]
        classes.append(kind)
    whole = torch.stack(masks)
    return (picture * 255).byte(), Objects(boxes_around(whole), torch.tensor(classes), whole)


def trained(pictures: Tensor, objects: list[Objects], steps: int) -> Detector:
    torch.manual_seed(0)
    encoder = ViT(patch_size=16, embed_dim=96, depth=3, num_heads=3).build(
        Size(SIDE, SIDE), 3, statistics(3)
    )
    task = Detect(window=4, global_blocks=1, drop_path=0.0, channels=32, sampled=32)
    model = task.build(encoder, KIND).train()
    batch = batch_of(pictures)._replace(annotations=tuple(objects))
    schedule = WarmupCosine(base_lr=2e-3 * 256 / len(pictures), warmup_epochs=0.05 * steps)
    course = Planned(steps, lambda step: schedule.rate(step, steps, len(pictures)))
    reports = train(
        model,
        iter(lambda: batch, None),
        AdamW(beta2=0.999).build(model),
        course,
        first_step=0,
        seed=0,
        device=torch.device("cpu"),
        precision="float32",
        micro_batch=len(pictures),
    )
    for report in reports:
        assert report.loss.isfinite()
    return model.eval()


def score_of(model: Detector, pictures: Tensor, objects: list[Objects]) -> DetectionScore:
    scoring = model.task.scoring(KIND)
    sizes = torch.tensor([[SIDE, SIDE]] * len(pictures))
    scoring.add(model.locate(pictures, None, sizes), tuple(objects))
    score = scoring.result()
    assert isinstance(score, DetectionScore)
    assert score.measure == "mask AP"
    return score


@pytest.mark.slow
def test_scenes_are_learned_by_heart() -> None:
    pytest.importorskip("faster_coco_eval")
    pictures, objects = zip(*(scene(number) for number in range(4)), strict=True)
    images = torch.stack(pictures)
    model = trained(images, list(objects), steps=250)
    score = score_of(model, images, list(objects))
    assert score.box.ap is not None
    assert score.box.ap > 0.9
    assert score.value > 0.9
