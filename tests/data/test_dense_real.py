"""Real sets with class maps and objects, against the numbers that come with them and against each other."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.annotations import ClassMaps, ObjectLabels, Objects
from unmask.data import Coco, InstanceMaps, Maps
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source
from unmask.data.labelled import open_labelled

Real = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "classes", "channels"),
    [("bccd", 3, 3), ("aerial-cars", 4, 3), ("neu-det", 6, 3), ("deeppcb", 6, 1)],
)
def test_boxes_are_those_of_the_file(
    real_set: Real, name: str, classes: int, channels: int
) -> None:
    root = real_set(name, limit=3)
    data = find_source(str(root))
    assert isinstance(data, Coco)
    labelled = open_labelled(data, 0, (ObjectLabels,))
    assert len(labelled.train.annotations.names) == classes
    assert labelled.train.channels == channels
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    ids = {image["file_name"]: image["id"] for image in content["images"]}
    for position in range(len(labelled.train)):
        boxes: list[list[float]] = []
        for entry in content["annotations"]:
            if entry["image_id"] == ids[labelled.train.name(position)]:
                left, top, width, height = entry["bbox"]
                boxes.append([left, top, left + width, top + height])
        known = labelled.train[position].annotation
        assert isinstance(known, Objects)
        limits = torch.tensor([*labelled.train[position].image.shape[:0:-1]] * 2).float()
        expected = torch.tensor(boxes).reshape(-1, 4)
        torch.testing.assert_close(
            known.boxes, expected.clamp(min=0).minimum(limits), atol=1e-3, rtol=0
        )


def test_people_are_the_same_in_run_lengths_polygons_and_maps(real_set: Real) -> None:
    """Run lengths are exact for all of them, polygons for nearly all."""
    root = real_set("pennfudan", limit=12)
    polygons = Coco(path=str(root)).open()
    runs = Coco(path=str(root / "annotations" / "instances_train_rle.json")).open()
    maps = InstanceMaps(path=str(root)).open()
    assert len(polygons) == len(runs) == len(maps) == 12
    differing = 0
    for position in range(len(runs)):
        one, two, three = (source[position].annotation for source in (runs, maps, polygons))
        for known in (one, two, three):
            assert isinstance(known, Objects)
            assert known.masks is not None
        assert torch.equal(one.masks, two.masks)
        assert torch.equal(one.boxes, two.boxes)
        differing += int((one.masks != three.masks).flatten(1).any(1).sum())
    assert differing <= 1


def test_class_maps_are_those_of_the_files(real_set: Real) -> None:
    root = real_set("camvid", limit=3)
    data = find_source(str(root))
    assert data == Maps(path=str(root))
    assert data.splits() == ("train", "test")
    source = data.open()
    assert isinstance(source.annotations, ClassMaps)
    assert len(source.annotations.names) == 11
    for position in range(len(source)):
        stem = Path(source.name(position)).stem
        values = np.array(Image.open(root / "masks" / "train" / f"{stem}.png")).astype(np.int64)
        known = source[position].annotation
        assert isinstance(known, torch.Tensor)
        assert np.array_equal(known.numpy(), np.where(values == 11, 255, values))
    assert all(name.endswith(".jpg") for name in map(pictures_alone(data).name, range(3)))


def test_classes_with_boxes_stay_classes(real_set: Real) -> None:
    root = real_set("tiny-imagenet", limit=2)
    assert len(find_source(str(root)).open().annotations.names) == 30
    boxes = find_source(str(root), "coco").open("test")
    assert len(boxes.annotations.names) == 30
    assert len(boxes) == 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pictures", "objects"),
    [
        ("bccd", (205, 72), (2804, 945)),
        ("pennfudan", (120, 50), (316, 107)),
        ("aerial-cars", (45, 14), (1306, 434)),
        ("neu-det", (960, 240), (2195, 563)),
        ("deeppcb", (591, 207), (4007, 1305)),
    ],
)
def test_the_whole_sets_have_their_known_numbers(
    real_set: Real, name: str, pictures: tuple[int, int], objects: tuple[int, int]
) -> None:
    data = find_source(str(real_set(name)))
    for split, count, total in zip(("train", "test"), pictures, objects, strict=True):
        source = data.open(split)
        assert len(source) == count
        found = source.found()
        dropped = sum(odd.number for odd in found.odd if "dropped" in odd.what)
        assert sum(found.counts) + dropped == total
