"""Average precision equals pycocotools, for any split of the pictures over processes."""

import contextlib
import copy
import io
import pickle
from importlib import util
from typing import Any

import numpy as np
import pytest
import torch
from reference.problems import random
from torch import Tensor

from unmask.annotations import Objects
from unmask.errors import ResourceError
from unmask.tasks import average_precision
from unmask.tasks.average_precision import Precisions, compressed
from unmask.tasks.detection_scores import DetectionScore, Precision
from unmask.tasks.detections import Detections

pytest.importorskip("faster_coco_eval")
NAMES = ("car", "tree", "never seen")
HEIGHT, WIDTH = 240, 300
Pictures = list[tuple[Detections, Objects]]


def masks_of(boxes: Tensor) -> Tensor:
    """An ellipse in each box."""
    y, x = torch.arange(HEIGHT)[:, None] + 0.5, torch.arange(WIDTH)[None] + 0.5
    left, top, right, bottom = (side[:, None, None] for side in boxes.unbind(1))
    down = (y - (top + bottom) / 2) / ((bottom - top) / 2)
    across = (x - (left + right) / 2) / ((right - left) / 2)
    return down.square() + across.square() <= 1


def drawn(count: int, seed: int, with_masks: bool, ties: bool = False) -> Pictures:
    """Objects of all sizes, some of them crowds, and detections near them and elsewhere; some pictures are empty."""
    draw = random(seed)
    pictures = []
    for number in range(count):
        many = 0 if number % 5 == 3 else int(torch.randint(1, 9, (), generator=draw))
        sides = torch.rand(many, 2, generator=draw).square() * 190 + 4
        corner = torch.rand(many, 2, generator=draw) * torch.tensor([WIDTH, HEIGHT])
        limits = torch.tensor([WIDTH, HEIGHT] * 2).float()
        boxes = torch.minimum(
            torch.cat([corner - sides / 2, corner + sides / 2], 1).clamp(0), limits
        )
        boxes = boxes.round()
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 2).all(1)]
        classes = torch.randint(2, (len(boxes),), generator=draw)
        crowd = torch.rand(len(boxes), generator=draw) < 0.15
        noise = (
            torch.randn(3, len(boxes), 4, generator=draw)
            * torch.tensor([1.0, 4.0, 15.0])[:, None, None]
        )
        found = torch.minimum((boxes + noise).flatten(0, 1).clamp(0), limits)
        guessed = classes.repeat(3)
        wrong = torch.rand(len(guessed), generator=draw) < 0.2
        guessed = torch.where(wrong, 1 - guessed, guessed)
        usable = (found[:, 2:] - found[:, :2] >= 2).all(1) & (number % 7 != 2)
        found, guessed = found[usable], guessed[usable]
        scores = torch.rand(len(found), generator=draw)
        scores = (scores * 10).ceil() / 10 if ties else scores
        pictures.append(
            (
                Detections(found, scores, guessed, masks_of(found) if with_masks else None),
                Objects(boxes, classes, masks_of(boxes) if with_masks else None, crowd),
            )
        )
    return pictures


def scored(pictures: Pictures, with_masks: bool) -> DetectionScore:
    scoring = Precisions(NAMES, with_masks)
    for found, objects in pictures:
        scoring.add((found,), (objects,))
    return scoring.result()


def reference(pictures: Pictures, part: str) -> tuple[list[float], list[float]]:
    """The first six numbers of pycocotools, and the average precision of each class; -1 where undefined."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    coco_masks = pytest.importorskip("pycocotools.mask")

    def runs(mask: Tensor) -> Any:
        return coco_masks.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))

    def corner_and_size(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations, results = [], []
    for image, (found, objects) in enumerate(pictures):
        for row, box in enumerate(objects.boxes.tolist()):
            around = corner_and_size(box)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(objects.classes[row]),
                "iscrowd": int(objects.crowd[row]),
                "bbox": around,
                "area": around[2] * around[3],
            }
            if objects.masks is not None:
                annotation["segmentation"] = runs(objects.masks[row])
                annotation["area"] = int(objects.masks[row].sum())
            annotations.append(annotation)
        for row, box in enumerate(found.boxes.tolist()):
            result = {
                "image_id": image,
                "category_id": int(found.classes[row]),
                "score": float(found.scores[row]),
            }
            if part == "bbox":
                result["bbox"] = corner_and_size(box)
            else:
                result["segmentation"] = runs(found.masks[row])
            results.append(result)
    truth = coco.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": n, "height": HEIGHT, "width": WIDTH} for n in range(len(pictures))],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = evaluation.COCOeval(truth, truth.loadRes(copy.deepcopy(results)), part)
        run.evaluate()
        run.accumulate()
        run.summarize()
    by_class = run.eval["precision"][:, :, :, 0, -1]
    means = [
        float(part[part > -1].mean()) if (part > -1).any() else -1.0
        for part in by_class.transpose(2, 0, 1)
    ]
    return run.stats[:6].tolist(), means


def numbers(precision: Precision) -> list[float]:
    values = (
        precision.ap,
        precision.ap50,
        precision.ap75,
        precision.small,
        precision.medium,
        precision.large,
    )
    return [-1.0 if value is None else value for value in values]


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_pycocotools(seed: int, with_masks: bool) -> None:
    pictures = drawn(40, seed, with_masks)
    score = scored(pictures, with_masks)
    expected, by_class = reference(pictures, "bbox")
    assert min(expected) > 0.02, "the problem has objects of all sizes"
    assert numbers(score.box) == pytest.approx(expected, abs=1e-6)
    assert [numbers(one.box)[0] for one in score.classes] == pytest.approx(by_class, abs=1e-6)
    assert (score.mask is not None) == with_masks
    if score.mask is not None:
        expected, by_class = reference(pictures, "segm")
        assert numbers(score.mask) == pytest.approx(expected, abs=1e-6)
        assert score.value == score.mask.ap
        mask_aps = [numbers(one.mask)[0] for one in score.classes if one.mask]
        assert mask_aps == pytest.approx(by_class, abs=1e-6)
    else:
        assert score.value == score.box.ap
    assert score.images == 40
    assert score.objects == sum(int((~objects.crowd).sum()) for _, objects in pictures)
    assert score.classes[2].box.ap is None


def test_parts_of_several_processes_make_the_same_score() -> None:
    """Also where scores are equal, which are ranked by what is in the pictures."""
    pictures = drawn(30, 5, with_masks=True, ties=True)
    whole = Precisions(NAMES, True)
    parts = [Precisions(NAMES, True) for _ in range(3)]
    for number, (found, objects) in enumerate(pictures):
        whole.add((found,), (objects,))
        parts[number % 3].add((found,), (objects,))
    parts = pickle.loads(pickle.dumps(parts))
    assert parts[0].merged(parts).result() == whole.result()
    assert whole.result().value > 0.05


def test_perfect_detections_score_1_and_none_score_0() -> None:
    pictures = drawn(20, 1, with_masks=True)
    perfect = [
        (Detections(o.boxes, torch.ones(len(o.boxes)), o.classes, o.masks), o) for _, o in pictures
    ]
    score = scored(perfect, True)
    assert score.value == score.box.ap == pytest.approx(1.0)
    nothing = Detections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), masks_of(torch.zeros(0, 4))
    )
    assert scored([(nothing, o) for _, o in pictures], True).value == 0


def test_pictures_without_any_object_have_no_score() -> None:
    empty = Objects(torch.zeros(0, 4), torch.zeros(0).long(), None)
    found = Detections(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0.9]), torch.tensor([0]))
    score = scored([(found, empty)], False)
    assert score.box.ap is None
    assert score.value == 0
    assert (
        score.line()
        == "box AP undefined (AP50 undefined, AP75 undefined), on 1 images with 0 objects"
    )


def test_crowds_count_neither_for_nor_against() -> None:
    """Detections within a crowd are left out, and a crowd that is not found is no loss."""
    boxes = torch.tensor([[0.0, 0, 40, 40], [100, 50, 180, 130]])
    objects = Objects(boxes, torch.zeros(2).long(), None, torch.tensor([False, True]))
    within = torch.tensor([[0.0, 0, 40, 40], [110, 60, 130, 80], [140, 90, 160, 120]])
    found = Detections(within, torch.tensor([0.5, 0.9, 0.8]), torch.zeros(3).long())
    assert scored([(found, objects)], False).value == pytest.approx(1.0)


def test_classes_are_a_table() -> None:
    score = scored(drawn(20, 2, with_masks=True), True)
    table = score.table()
    car, _, never = table.rows
    assert table.headings == (
        *("class", "objects", "mask AP", "mask AP50", "mask AP75"),
        *("box AP", "box AP50", "box AP75"),
    )
    assert car[0] == "car"
    assert score.classes[0].mask is not None
    assert car[2] == score.classes[0].mask.ap
    assert car[5] == score.classes[0].box.ap
    assert never == ("never seen", 0, *(None,) * 6)
    # the mean over classes is the score itself, as COCO defines it
    assert table.mean()[2] == pytest.approx(score.value)
    assert len(scored(drawn(5, 2, with_masks=False), False).table().headings) == 5


def test_a_missing_package_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(average_precision, "find_spec", lambda name: None)
    assert util.find_spec("faster_coco_eval") is not None
    with pytest.raises(
        ResourceError, match=r'needs faster-coco-eval; .* `pip install "unmask\[dense\]"`'
    ):
        Precisions(NAMES, False)


def test_run_lengths_equal_pycocotools() -> None:
    """Of drawn pixels, and of masks that are empty, full, at each border, and of one pixel in each corner."""
    coded = pytest.importorskip("pycocotools.mask")
    masks = torch.zeros(13, 5, 7, dtype=torch.bool)
    masks[1] = True
    masks[2, 0], masks[3, -1], masks[4, :, 0], masks[5, :, -1] = True, True, True, True
    masks[6, 0, 0] = masks[7, 0, -1] = masks[8, -1, 0] = masks[9, -1, -1] = True
    masks[10:] = torch.rand(3, 5, 7, generator=random(3)) < 0.4
    found = compressed(masks)
    for mask, runs in zip(masks, found, strict=True):
        expected = coded.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
        assert (list(runs["size"]), runs["counts"]) == (expected["size"], expected["counts"])
    assert compressed(None) == compressed(masks[:0]) == []
