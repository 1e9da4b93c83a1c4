"""Objects and class maps of large pictures in tiles: each object once, whatever tiles cut of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import problems
from torch import Tensor, nn

from unmask.annotations import ClassMaps, ObjectLabels
from unmask.contracts import Size
from unmask.cutouts import Cutouts
from unmask.data.statistics import IMAGENET
from unmask.encoders.vit import ViT
from unmask.pictures.located import small_enough
from unmask.recipes.detect import DETECT_MINI
from unmask.recipes.segment import NAMED
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.locate import locate
from unmask.tasks.detections import Detections
from unmask.tasks.joined import Tile, joined
from unmask.tasks.run_lengths import run_lengths

SIDE = 64
Box = tuple[int, int, int, int]


class Oracle(nn.Module):
    """Finds what a tile shows of objects; the picture's first two channels say where the tile is."""

    def __init__(self, boxes: list[Box], classes: list[int], masks: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.boxes, self.classes, self.masks = torch.tensor(boxes).float(), classes, masks

    def locate(self, images: Tensor, sizes: Any, wholes: Tensor) -> tuple[Detections]:
        (height, width), (x, y) = images.shape[-2:], images[0, :2, 0, 0].tolist()
        boxes = self.boxes - torch.tensor([x, y, x, y])
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
        seen = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        boxes, classes = boxes[seen], torch.tensor(self.classes)[seen]
        masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = True
        scores = 0.5 + (boxes[:, 2] - boxes[:, 0]) / 1000
        return (Detections(boxes, scores, classes, masks if self.masks else None),)


def found(
    boxes: list[Box], classes: list[int] | None = None, masks: bool = False, side: int = 2 * SIDE
) -> Detections:
    """What is found in tiles of a picture."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    picture = torch.stack([x, y, x]).float()
    recipe = replace(DETECT_MINI, image_size=Size(SIDE, SIDE))
    kind = ObjectLabels(names=("a", "b"), masks=masks)
    job = Finetune(recipe=recipe, annotations=kind, init=None)
    module = Oracle(boxes, classes or [0] * len(boxes), masks)
    return locate(Tuned(module, job, IMAGENET), picture, tiles=True)


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 30, 30),  # in one tile
        (50, 6, 62, 18),  # whole in two
        (47, 6, 69, 18),  # over a seam, and cut by no more than some tiles
        (44, 6, 66, 9),  # cut in every tile
        (31, 31, 88, 88),  # larger than the overlap, in all nine tiles
        (0, 20, 128, 40),  # as wide as the picture
        (0, 0, 128, 128),
        (64, 64, 128, 128),
        (47, 20, 49, 22),  # small, at the border of a tile
    ],
)
def test_an_object_is_found_exactly_once(box: Box) -> None:
    one = found([box], masks=True)
    assert one.boxes.tolist() == [list(map(float, box))]
    assert isinstance(one.masks, Cutouts)
    expected = torch.zeros(128, 128, dtype=torch.bool)
    expected[box[1] : box[3], box[0] : box[2]] = True
    assert torch.equal(one.masks[0], expected)
    assert 0.5 < float(one.scores[0]) <= 1


def test_objects_beside_one_another_stay_apart() -> None:
    """Two over the same seam, one of another class around one of them, and one within a tile."""
    boxes = [(40, 10, 70, 20), (40, 30, 70, 40), (38, 28, 72, 42), (80, 100, 90, 110)]
    several = found(boxes, [0, 0, 1, 0])
    rows = {
        (*map(int, box), number)
        for box, number in zip(several.boxes.tolist(), several.classes.tolist(), strict=True)
    }
    assert rows == {(*box, number) for box, number in zip(boxes, [0, 0, 1, 0], strict=True)}
    assert len(several.boxes) == 4
    assert torch.equal(several.scores, several.scores.sort(descending=True).values)


def seen_in(extent: list[int], box: list[int], score: float, number: int, is_cut: bool) -> Tile:
    """A tile in which one object is found."""
    one = Detections(torch.tensor([box]).float(), torch.tensor([score]), torch.tensor([number]))
    return Tile(torch.tensor(extent).float(), one, torch.tensor([is_cut]))


def test_a_whole_object_comes_before_surer_parts_that_do_not_quite_fit() -> None:
    whole = seen_in([0, 0, 64, 64], [40, 10, 60, 20], 0.6, 0, False)
    part = seen_in([48, 0, 112, 64], [48, 10, 63, 23], 0.9, 0, True)
    for tiles in ([whole, part], [part, whole]):
        assert joined(tiles).boxes.tolist() == [[40, 10, 60, 20]]


def test_parts_of_two_classes_are_two_objects() -> None:
    one = seen_in([0, 0, 64, 64], [40, 10, 64, 20], 0.6, 0, True)
    other = seen_in([48, 0, 112, 64], [48, 10, 70, 20], 0.9, 1, True)
    both = joined([one, other])
    assert both.boxes.tolist() == [[48, 10, 70, 20], [40, 10, 64, 20]]
    assert both.classes.tolist() == [1, 0]


def test_a_picture_without_objects_has_none() -> None:
    nothing = found([(500, 500, 510, 510)], masks=True)
    assert nothing.boxes.shape == (0, 4)
    assert isinstance(nothing.masks, Cutouts)
    assert nothing.masks.resized((4, 5)).shape == (0, 4, 5)
    assert run_lengths(nothing.masks) == []


def test_masks_take_no_more_memory_than_their_objects() -> None:
    boxes = [(x, y, x + 5, y + 5) for x in range(2, 120, 14) for y in range(3, 120, 14)]
    masks = found(boxes, masks=True).masks
    assert isinstance(masks, Cutouts)
    assert len(masks) == len(boxes)
    assert sum(part.untyped_storage().nbytes() for part in masks.parts) <= 8 * 8 * len(boxes)


def test_cutouts_are_written_and_drawn_as_whole_masks() -> None:
    masks = found([(10, 10, 30, 30), (31, 31, 88, 91), (40, 2, 70, 9)], masks=True).masks
    assert isinstance(masks, Cutouts)
    whole = torch.stack([masks[row] for row in range(len(masks))])
    assert masks.shape == whole.shape
    assert run_lengths(masks) == run_lengths(whole)
    picture = torch.zeros(3, 128, 128)
    boxes = torch.zeros(3, 4)
    scores, classes = torch.ones(3), torch.zeros(3).long()
    for largest in (50, 77):
        lean = small_enough(picture, Detections(boxes, scores, classes, masks), largest)[1]
        full = small_enough(picture, Detections(boxes, scores, classes, whole), largest)[1]
        assert torch.equal(lean.masks, full.masks)


def test_class_maps_are_those_of_sliding_windows() -> None:
    """Of a picture that testing does not resize, the same as without tiles; of a larger one, in its own pixels."""
    recipe = NAMED["segment-ti8"].recipe
    recipe = replace(
        recipe,
        encoder=ViT(patch_size=8, embed_dim=24, depth=4, num_heads=3),
        image_size=Size(32, 32),
    )
    kind = ClassMaps(names=("a", "b", "c"))
    encoder = recipe.encoder.build(recipe.image_size, 3, IMAGENET.tensors())
    module: Any = recipe.task.build(encoder, kind).eval()
    tuned = Tuned(module, Finetune(recipe=recipe, annotations=kind, init=None), IMAGENET)
    fitted = torch.randint(256, (3, 32, 70), generator=problems.random(0)).byte()
    assert torch.equal(locate(tuned, fitted, tiles=True), locate(tuned, fitted))
    large = torch.randint(256, (3, 64, 70), generator=problems.random(1)).byte()
    (expected,) = module.locate(large[None], None, torch.tensor([[64, 70]]))
    in_tiles: Tensor = locate(tuned, large, tiles=True)
    assert torch.equal(in_tiles, expected)
    assert in_tiles.unique().numel() > 1
    assert not torch.equal(in_tiles, locate(tuned, large))
